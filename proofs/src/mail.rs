//! A mailbox that keeps of each mail what is needed, however many come.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use usermgr_smtp::testing::ReceivedMail;
use uuid::Uuid;

use crate::mail_server::MailServer;
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
    server: Arc<MailServer>,
    kept: Arc<Mutex<Kept>>,
}

impl Mailbox {
    pub(crate) async fn open() -> io::Result<Self> {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let keeping = Arc::clone(&kept);
        let server = MailServer::smtp(move |mail| keep(&keeping, mail)).await?;
        Ok(Self { server: Arc::new(server), kept })
    }

    pub(crate) fn url(&self) -> String {
        self.server.url.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many mails came to an address.
    pub(crate) fn count(&self, address: &str) -> usize {
        self.kept().letters.get(address).map_or(0, Vec::len)
    }

    /// The code of the first mail to an address that has one.
    pub(crate) fn first_code(&self, address: &str) -> Option<String> {
        self.kept().letters.get(address)?.iter().find_map(|letter| letter.code.clone())
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

fn keep(kept: &Mutex<Kept>, mail: ReceivedMail) {
    let id = message_id(&mail);
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

/// The outbox's identifier, as the `Message-ID` tells it; nil when it tells none.
pub(crate) fn message_id(mail: &ReceivedMail) -> Uuid {
    let id = mail.header("Message-ID").unwrap_or_default();
    id.trim_start_matches('<').split('@').next().and_then(|id| id.parse().ok()).unwrap_or_default()
}
