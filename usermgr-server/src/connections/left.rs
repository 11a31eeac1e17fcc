//! What is left of a request's body when its answer is there. Over HTTP/1 the next request stands behind it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

/// The most bytes that are read and forgotten, so that the connection can be kept: four times the default bound of a body.
const MAX_LEFT: u64 = 256 * 1024;
/// How long they may take: an answer waits for them.
const LEFT_TIMEOUT: Duration = Duration::from_millis(500);

/// The body of a request. Where it is given up before its end, [`Left`] has the rest.
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Option<Incoming>,
    is_begun: bool,
    left: Option<Left>,
}

/// The rest of a body that was given up, if one was.
#[derive(Debug, Clone, Default)]
pub(super) struct Left(Arc<Mutex<Option<Rest>>>);

#[derive(Debug)]
struct Rest {
    body: Incoming,
    /// Whether somebody began to read it: then the client was told to send it.
    is_begun: bool,
}

impl RequestBody {
    pub(super) const fn new(body: Incoming, left: Option<Left>) -> Self {
        Self { body: Some(body), is_begun: false, left }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(body), Some(left)) = (self.body.take(), &self.left)
            && !body.is_end_stream()
        {
            *left.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Rest { body, is_begun: self.is_begun });
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if frame.is_none() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Left {
    /// Reads what is left and forgets it. Whether the connection stands at the next request then.
    pub(super) async fn drain(self, waits_to_send: bool) -> bool {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Rest { mut body, is_begun }) = rest else { return true };
        // To read would tell the client to send it (`100 Continue`).
        if (waits_to_send && !is_begun) || body.size_hint().lower() > MAX_LEFT {
            return false;
        }
        let draining = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                read += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                if read > MAX_LEFT {
                    return false;
                }
            }
            true
        };
        timeout(LEFT_TIMEOUT, draining).await.unwrap_or(false)
    }
}
