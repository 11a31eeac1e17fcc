//! What a connection is waiting for, and until when.
//!
//! Three places tell: the socket ([`Watched`]: bytes that came, bytes that could not leave), each request (from its head to
//! its answer), and each piece of an answer ([`Piece`]: when the connection took it, which HTTP/2 does only as far as the
//! client's window goes). [`Activity`] makes one deadline of it. No crate does this: the wrappers that there are
//! (tokio-io-timeout) see the socket alone, and neither an idle connection nor a window of 0 is seen there.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long a connection may take to ask for something, TLS included, and later to send the head of a request.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer. Longer than a lost packet or a change of networks needs.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The slowest that a client may take answers once the time above is used up, in bytes a second: a tenth of GPRS.
const SLOWEST: u32 = 512;
/// Requests that one connection may give up, beyond those it took the answers of. A browser gives up a few.
const MAX_ABANDONED: u32 = 100;

/// What was due and did not come, or came too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The head of a request.
    Head,
    /// Another request.
    Request,
    /// The client was to take an answer.
    Reading,
    /// Requests were given up over and over.
    Abandoned,
}

impl Due {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Head => "slow_request",
            Self::Request => "idle",
            Self::Reading => "slow_reader",
            Self::Abandoned => "resets",
        }
    }
}

/// Time that something may take: [`STALL_TIMEOUT`], and more for what was done meanwhile.
#[derive(Debug, Default)]
struct Allowance(Option<Instant>);

impl Allowance {
    fn begin(&mut self, now: Instant) {
        self.0.get_or_insert(now + STALL_TIMEOUT);
    }

    fn progress(&mut self, now: Instant, bytes: usize) {
        if let Some(until) = &mut self.0 {
            let earned = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / SLOWEST;
            *until = (*until + earned).min(now + STALL_TIMEOUT);
        }
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The first request.
    First(Instant),
    /// Another request, of which nothing came.
    Idle(Instant),
    /// The rest of a request's head.
    Head(Instant),
    /// Nothing of the client's: a request is being answered, which has time limits of its own.
    Busy,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Requests whose answer was not taken yet.
    requests: usize,
    /// Pieces of answers that wait to be taken.
    pieces: usize,
    /// For the client to open its window.
    taking: Allowance,
    /// For the client to read from its socket.
    sending: Allowance,
    abandoned: u32,
}

/// What one connection is waiting for.
#[derive(Debug)]
pub(crate) struct Activity {
    state: Mutex<State>,
    /// Whoever waits for the deadline: it may come to be earlier.
    deadline: AtomicWaker,
    keep_alive: Duration,
    is_http1: AtomicBool,
    /// Whether the connection is given up: then its socket keeps nothing for a client that does not read.
    is_cut: AtomicBool,
    /// Whether the next answer is the last.
    is_last: AtomicBool,
}

impl Activity {
    /// Of a connection that has just come.
    pub(crate) fn new(keep_alive: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                phase: Phase::First(Instant::now() + HEAD_TIMEOUT),
                requests: 0,
                pieces: 0,
                taking: Allowance::default(),
                sending: Allowance::default(),
                abandoned: 0,
            }),
            deadline: AtomicWaker::new(),
            keep_alive,
            is_http1: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
        })
    }

    /// Over HTTP/1 what comes between two requests is the beginning of the next.
    pub(crate) fn speaks_http1(&self) {
        self.is_http1.store(true, Ordering::Relaxed);
    }

    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Has the next answer say that it is the last (HTTP/1).
    pub(crate) fn end_with_next(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_last.load(Ordering::Relaxed)
    }

    /// When something is due, and what; woken when that comes to be earlier.
    pub(crate) fn due(&self, waker: &Waker) -> (Instant, Due) {
        self.deadline.register(waker);
        let state = self.state();
        let phase = match state.phase {
            Phase::First(until) | Phase::Head(until) => Some((until, Due::Head)),
            Phase::Idle(until) => Some((until, Due::Request)),
            Phase::Busy => None,
        };
        let reading =
            [state.taking.0, state.sending.0].into_iter().flatten().map(|until| (until, Due::Reading));
        let abandoned = (state.abandoned > MAX_ABANDONED).then(|| (Instant::now(), Due::Abandoned));
        let due = phase.into_iter().chain(reading).chain(abandoned).min_by_key(|(until, _)| *until);
        due.unwrap_or_else(|| (Instant::now() + self.keep_alive, Due::Request))
    }

    /// The head of a request was read.
    pub(crate) fn request(self: &Arc<Self>) -> Request {
        let mut state = self.state();
        state.phase = Phase::Busy;
        state.requests += 1;
        Request { activity: Arc::clone(self), is_answered: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self) {
        if self.is_http1.load(Ordering::Relaxed) {
            let mut state = self.state();
            if matches!(state.phase, Phase::Idle(_)) {
                state.phase = Phase::Head(Instant::now() + HEAD_TIMEOUT);
            }
        }
    }

    fn sent<T>(&self, sent: &Poll<io::Result<T>>, bytes: impl FnOnce(&T) -> usize) {
        match sent {
            Poll::Pending => self.state().sending.begin(Instant::now()),
            Poll::Ready(Ok(written)) => self.state().sending.progress(Instant::now(), bytes(written)),
            Poll::Ready(Err(_)) => {}
        }
    }

    fn flushed<T>(&self, flushed: &Poll<io::Result<T>>) {
        match flushed {
            Poll::Pending => self.state().sending.begin(Instant::now()),
            Poll::Ready(_) => self.state().sending.end(),
        }
    }
}

/// A request, until its answer was taken.
#[derive(Debug)]
pub(crate) struct Request {
    activity: Arc<Activity>,
    is_answered: AtomicBool,
}

impl Request {
    /// The body of its answer, watched until it was taken. The request is answered when the connection asks for that body:
    /// for one that was given up meanwhile, an answer is made as well, and nobody asks for it.
    pub(crate) fn answered<B: Body>(self, body: B) -> Answer<B> {
        self.is_answered.store(body.is_end_stream(), Ordering::Relaxed);
        Answer { body, request: Arc::new(self) }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let is_answered = *self.is_answered.get_mut();
        let too_often = {
            let mut state = self.activity.state();
            state.requests -= 1;
            if state.requests == 0 {
                state.phase = Phase::Idle(Instant::now() + self.activity.keep_alive);
            }
            let abandoned = state.abandoned;
            state.abandoned =
                if is_answered { abandoned.saturating_sub(1) } else { abandoned.saturating_add(1) };
            state.abandoned > MAX_ABANDONED
        };
        if too_often {
            self.activity.deadline.wake();
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Answer<B> {
    body: B,
    request: Arc<Request>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        self.request.is_answered.store(true, Ordering::Relaxed);
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let watched = |frame: Frame<Bytes>| frame.map_data(|bytes| Piece::new(bytes, &self.request));
        Poll::Ready(frame.map(|frame| frame.map(watched)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer, until the connection took it.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    request: Arc<Request>,
}

impl Piece {
    fn new(bytes: Bytes, request: &Arc<Request>) -> Self {
        let activity = &request.activity;
        {
            let mut state = activity.state();
            state.pieces += 1;
            state.taking.begin(Instant::now());
        }
        activity.deadline.wake();
        Self { bytes, request: Arc::clone(request) }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.request.activity.state().taking.progress(Instant::now(), count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut state = self.request.activity.state();
        state.pieces -= 1;
        if state.pieces == 0 {
            state.taking.end();
        }
    }
}

/// A socket that tells what comes and what cannot leave. TLS stands above it: what counts is what the other side took.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    socket: T,
    activity: Arc<Activity>,
    discard: fn(&T),
}

impl<T> Watched<T> {
    /// With what to do before the socket is closed for a client that does not read.
    pub(crate) const fn new(socket: T, activity: Arc<Activity>, discard: fn(&T)) -> Self {
        Self { socket, activity, discard }
    }

    pub(crate) const fn get_ref(&self) -> &T {
        &self.socket
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.activity.is_cut.load(Ordering::Relaxed) {
            (self.discard)(&self.socket);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.activity.sent(&written, |bytes| *bytes);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.activity.sent(&written, |bytes| *bytes);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.activity.flushed(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.socket).poll_shutdown(context);
        self.activity.flushed(&shut);
        shut
    }
}
