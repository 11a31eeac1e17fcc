//! A way to PostgreSQL that can be disturbed: it reads the protocol's messages as they pass (PostgreSQL's manual,
//! chapter "Frontend/Backend Protocol").

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::Trouble;

/// What is done to the connections.
#[derive(Default)]
struct Faults {
    /// Notifications are left out.
    deaf: AtomicBool,
    /// Nothing is passed on.
    still: AtomicBool,
    /// So many commits are yet to be cut.
    commits: AtomicUsize,
}

/// A proxy on loopback before a PostgreSQL.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    listening: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    /// Before the server that a URL names.
    pub(crate) async fn open(url: &str) -> Result<Self, Trouble> {
        let (_, rest) = url.rsplit_once('@').ok_or("the URL names a user")?;
        let (target, _) = rest.split_once('/').ok_or("the URL names a database")?;
        let target: SocketAddr = target.parse()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, faults) = (listener.local_addr()?, Arc::new(Faults::default()));
        let shared = Arc::clone(&faults);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let faults = Arc::clone(&shared);
                tokio::spawn(async move { drop(pass(stream, target, &faults).await) });
            }
        });
        Ok(Self { address, faults, listening: listening.abort_handle() })
    }

    /// The same database, by this way.
    pub(crate) fn url(&self, url: &str) -> Result<String, Trouble> {
        let (user, rest) = url.rsplit_once('@').ok_or("the URL names a user")?;
        let (_, database) = rest.split_once('/').ok_or("the URL names a database")?;
        Ok(format!("{user}@{}/{database}?sslmode=disable", self.address))
    }

    /// From now on no NOTIFY is heard of.
    pub(crate) fn leave_notifications_out(&self) {
        self.faults.deaf.store(true, Ordering::SeqCst);
    }

    /// The next so many commits are cut off with their connection: every other one before it reaches the database, the
    /// others after it did, before its answer is read.
    pub(crate) fn cut_commits(&self, count: usize) {
        self.faults.commits.store(count, Ordering::SeqCst);
    }

    /// How many commits are yet to be cut.
    pub(crate) fn commits_to_cut(&self) -> usize {
        self.faults.commits.load(Ordering::SeqCst)
    }

    /// Passes nothing on, without a word, or goes on with it.
    pub(crate) fn stand_still(&self, still: bool) {
        self.faults.still.store(still, Ordering::SeqCst);
    }
}

/// One connection, until one side ends or it is cut.
async fn pass(client: TcpStream, target: SocketAddr, faults: &Faults) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = AtomicBool::new(false);
    tokio::select! {
        asked = ask(from_client, to_server, faults, &cut) => asked,
        told = tell(from_server, to_client, faults, &cut) => told,
    }
}

/// What the client says.
async fn ask(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: &Faults,
    cut: &AtomicBool,
) -> io::Result<()> {
    // The first message has no type.
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    to.write_all(&length).await?;
    to.write_all(&rest(&mut from, length).await?).await?;
    loop {
        let (kind, message) = message(&mut from).await?;
        while faults.still.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let is_commit = kind == b'Q' && message.get(5..).is_some_and(|text| text.starts_with(b"COMMIT"));
        let left = |left: usize| left.checked_sub(1);
        if is_commit && let Ok(left) = faults.commits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            cut.store(true, Ordering::SeqCst);
            if left % 2 == 0 {
                to.write_all(&message).await?;
                // Closed at once, the connection might be reset before the message is read.
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            return Ok(());
        }
        to.write_all(&message).await?;
    }
}

/// What the server says.
async fn tell(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: &Faults,
    cut: &AtomicBool,
) -> io::Result<()> {
    loop {
        let (kind, message) = message(&mut from).await?;
        while faults.still.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let is_left_out = kind == b'A' && faults.deaf.load(Ordering::SeqCst);
        if !is_left_out && !cut.load(Ordering::SeqCst) {
            to.write_all(&message).await?;
        }
    }
}

/// A message with its type and its length.
async fn message(from: &mut OwnedReadHalf) -> io::Result<(u8, Vec<u8>)> {
    let kind = from.read_u8().await?;
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut message = vec![kind];
    message.extend_from_slice(&length);
    message.append(&mut rest(from, length).await?);
    Ok((kind, message))
}

/// What follows a length, which counts itself.
async fn rest(from: &mut OwnedReadHalf, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(0).saturating_sub(4);
    let mut rest = vec![0; length];
    from.read_exact(&mut rest).await?;
    Ok(rest)
}
