//! A mail server on loopback that keeps of each mail what the races need, however many come.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use usermgr_smtp::testing::ReceivedMail;
use uuid::Uuid;

use crate::{PATIENCE, Trouble};

/// What a mail carried.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// The outbox's identifier, as the `Message-ID` tells it.
    pub(crate) id: Uuid,
    pub(crate) to: String,
    pub(crate) code: Option<String>,
    pub(crate) link: Option<String>,
}

#[derive(Default)]
struct Kept {
    letters: HashMap<String, Vec<Letter>>,
    ids: HashSet<Uuid>,
    doubles: Vec<Letter>,
}

/// Everything that was mailed.
#[derive(Clone)]
pub(crate) struct Mailbox {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl Mailbox {
    pub(crate) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mailbox = Self { address: listener.local_addr()?, kept: Arc::default() };
        let kept = Arc::clone(&mailbox.kept);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move { drop(serve(stream, &kept).await) });
            }
        });
        Ok(mailbox)
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}?tls=none", self.address)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many mails came to an address.
    pub(crate) fn count(&self, address: &str) -> usize {
        self.kept().letters.get(address).map_or(0, Vec::len)
    }

    /// Mails that came more than once since this was asked last.
    pub(crate) fn doubles(&self) -> Vec<Letter> {
        std::mem::take(&mut self.kept().doubles)
    }

    /// The first mails with a code to an address, once there are this many.
    pub(crate) async fn codes(&self, address: &str, wanted: usize) -> Result<Vec<Letter>, Trouble> {
        self.wait(address, wanted, "a code", |letter| letter.code.is_some()).await
    }

    /// The n-th mail with a link to an address, from 0.
    pub(crate) async fn link(&self, address: &str, n: usize) -> Result<String, Trouble> {
        let letters = self.wait(address, n + 1, "a link", |letter| letter.link.is_some()).await?;
        letters.into_iter().nth(n).and_then(|letter| letter.link).ok_or_else(|| "no link".into())
    }

    /// The mail of this identifier.
    pub(crate) async fn letter(&self, addresses: &[&str], id: Uuid) -> Result<Letter, Trouble> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            for address in addresses {
                let kept = self.kept();
                let letter = kept.letters.get(*address).and_then(|all| all.iter().find(|one| one.id == id));
                if let Some(letter) = letter {
                    return Ok(letter.clone());
                }
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Err(format!("stuck: the mail of the live code, to {}, did not come", addresses.join(" or ")).into())
    }

    async fn wait(
        &self,
        address: &str,
        wanted: usize,
        what: &str,
        fits: impl Fn(&Letter) -> bool,
    ) -> Result<Vec<Letter>, Trouble> {
        let begun = Instant::now();
        loop {
            let letters: Vec<_> = {
                let kept = self.kept();
                let all = kept.letters.get(address).into_iter().flatten();
                all.filter(|letter| fits(letter)).take(wanted).cloned().collect()
            };
            if letters.len() == wanted {
                return Ok(letters);
            }
            if begun.elapsed() > PATIENCE {
                let got = letters.len();
                return Err(format!("stuck: of {wanted} mails with {what} to {address} came {got}").into());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

async fn serve(stream: TcpStream, kept: &Mutex<Kept>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink.test ESMTP\r\n").await?;
    let mut to = Vec::new();
    loop {
        let line = line(&mut stream).await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sink.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            "DATA" => {
                stream.write_all(b"354 go ahead\r\n").await?;
                let raw = message(&mut stream).await?;
                keep(kept, ReceivedMail { from: String::new(), to: std::mem::take(&mut to), raw });
                b"250 2.0.0 taken\r\n"
            }
            "QUIT" => return stream.write_all(b"221 2.0.0 bye\r\n").await,
            "RCPT" => {
                to.extend(
                    line.split_once('<')
                        .and_then(|(_, rest)| rest.split_once('>'))
                        .map(|(to, _)| to.to_owned()),
                );
                b"250 2.1.5 ok\r\n"
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}

fn keep(kept: &Mutex<Kept>, mail: ReceivedMail) {
    let id = mail.header("Message-ID").unwrap_or_default();
    let id = id.trim_start_matches('<').split('@').next().and_then(|id| id.parse().ok()).unwrap_or_default();
    let (code, link) = (mail.code(), mail.link_token());
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let new = kept.ids.insert(id);
    for to in mail.to {
        let letter = Letter { id, to: to.clone(), code: code.clone(), link: link.clone() };
        if !new {
            kept.doubles.push(letter.clone());
        }
        kept.letters.entry(to).or_default().push(letter);
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

async fn message(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    loop {
        let line = line(stream).await?;
        if line == b".\r\n" {
            return Ok(raw);
        }
        raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
