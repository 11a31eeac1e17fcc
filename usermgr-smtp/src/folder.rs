//! Mails as files.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use usermgr_core::port::mailer::{Mail, MailError, Mailer};

use crate::message;
use crate::sender::Sender;

/// Distinguishes the temporary names of one process.
static ATTEMPT: AtomicU64 = AtomicU64::new(0);

/// Writes each mail to `{id}.eml` in a folder, readable by its owner only.
///
/// A file appears whole or not at all. The same mail handed over again replaces its own file.
///
/// ```
/// use usermgr_smtp::{Folder, Sender};
///
/// let folder = Folder::new("/var/lib/app/mails", Sender::parse("Example <noreply@example.org>")?);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    sender: Sender,
}

impl Folder {
    /// Mails from this sender into the folder, which is made with the first mail if it is missing.
    pub fn new(path: impl Into<PathBuf>, sender: Sender) -> Self {
        Self { path: path.into(), sender }
    }
}

#[async_trait]
impl Mailer for Folder {
    async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let bytes = message::build_message(mail, &self.sender)?;
        let folder = self.path.clone();
        let name = mail.id.to_string();
        let failed = |e: io::Error| MailError::transient("the mail folder cannot be written").with_source(e);
        tokio::task::spawn_blocking(move || write(&folder, &name, &bytes))
            .await
            .map_err(|e| failed(io::Error::other(e)))?
            .map_err(failed)
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    make_private_folder(folder)?;
    let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{}.{attempt}.tmp", std::process::id()));
    let done = write_new(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, folder.join(format!("{name}.eml"))))
        .and_then(|()| sync_folder(folder));
    if done.is_err() {
        // What failed first is what the caller needs to know.
        let _ = fs::remove_file(&temporary);
    }
    done
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes the new name itself survive a power cut, where folders can be opened as files.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}
