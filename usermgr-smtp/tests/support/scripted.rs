//! A server whose every byte a test chooses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What to reply to a command on the n-th connection (the first is 1). `CONNECT` is the greeting, `MESSAGE` the end of a
/// message. No reply at all closes the connection; so does one of 221 or 421, once it is sent.
pub(crate) type Script = Arc<dyn Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync>;

pub(crate) struct ScriptedServer {
    address: SocketAddr,
    commands: Arc<Mutex<Vec<(usize, String)>>>,
}

impl ScriptedServer {
    pub(crate) async fn start(
        script: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start_slow(Duration::ZERO, script).await
    }

    /// With a pause before each byte.
    pub(crate) async fn start_slow(
        pause: Duration,
        script: impl Fn(usize, &str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let commands = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&commands));
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                tokio::spawn(serve(stream, number, pause, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { address, commands }
    }

    pub(crate) fn url(&self, tls: &str) -> String {
        format!("smtp://{}?tls={tls}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The verbs so far, with the number of their connection.
    pub(crate) fn verbs(&self) -> Vec<(usize, String)> {
        self.commands.lock().unwrap().clone()
    }

    /// How often this verb came, over all connections.
    pub(crate) fn count(&self, verb: &str) -> usize {
        self.verbs().iter().filter(|(_, other)| other == verb).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.count("CONNECT")
    }
}

async fn serve(
    stream: TcpStream,
    number: usize,
    pause: Duration,
    script: Script,
    log: Arc<Mutex<Vec<(usize, String)>>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut verb = "CONNECT".to_owned();
    loop {
        log.lock().unwrap().push((number, verb.clone()));
        let reply = script(number, &verb)?;
        if pause.is_zero() {
            stream.write_all(&reply).await.ok()?;
        }
        for byte in reply.chunks(1).filter(|_| !pause.is_zero()) {
            tokio::time::sleep(pause).await;
            stream.write_all(byte).await.ok()?;
        }
        if reply.starts_with(b"221") || reply.starts_with(b"421") {
            return None;
        }
        let in_message = verb == "DATA" && reply.starts_with(b"354");
        let mut line = Vec::new();
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                return None;
            }
            if !in_message || line == b".\r\n" {
                break;
            }
        }
        let line = String::from_utf8_lossy(&line).to_ascii_uppercase();
        let word = if in_message { "MESSAGE" } else { line.split_whitespace().next().unwrap_or("") };
        word.clone_into(&mut verb);
    }
}

/// What a server that takes everything replies.
#[expect(clippy::unnecessary_wraps, reason = "it is the rest of a script")]
pub(crate) fn usual(verb: &str) -> Option<Vec<u8>> {
    let reply: &[u8] = match verb {
        "CONNECT" => b"220 scripted.test ESMTP\r\n",
        "EHLO" => b"250-scripted.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
        "DATA" => b"354 go ahead\r\n",
        "QUIT" => b"221 bye\r\n",
        _ => b"250 ok\r\n",
    };
    Some(reply.to_vec())
}
