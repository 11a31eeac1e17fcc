//! How much is answered in a second, to many callers at once.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use usermgr_core::{ClientContext, Password};

use crate::site::{PASSWORD, Site};

const CALLERS: usize = 16;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);

/// Writes the rates of all sites, which are asked in turn; each is the median of the rounds.
pub(crate) async fn write(out: &mut String, sites: &[Site]) {
    writeln!(
        out,
        "\n| a second, {CALLERS} callers |{}",
        cells(sites.iter().map(|site| format!("{} users", site.users)))
    )
    .unwrap();
    writeln!(out, "|---|{}", "---:|".repeat(sites.len())).unwrap();
    let mut rates = vec![(Vec::new(), Vec::new()); sites.len()];
    for _ in 0..ROUNDS {
        for (site, (me, sign_in)) in sites.iter().zip(&mut rates) {
            me.push(
                rate(async |n| drop(site.manager.sessions().authenticate(site.token(n)).await.unwrap()))
                    .await,
            );
            let (password, client) = (Password::new(PASSWORD), ClientContext::new());
            let sessions = site.manager.sessions();
            sign_in.push(
                rate(async |n| {
                    drop(sessions.login(site.user(n).email.as_str(), &password, &client).await.unwrap())
                })
                .await,
            );
        }
    }
    let median = |rates: &Vec<f64>| format!("{:.0}", crate::site::quantile(rates.clone(), 0.5));
    writeln!(out, "| `me` |{}", cells(rates.iter().map(|(me, _)| median(me)))).unwrap();
    writeln!(
        out,
        "| sign-ins, the hash costs nothing |{}",
        cells(rates.iter().map(|(_, sign_in)| median(sign_in)))
    )
    .unwrap();
}

fn cells(texts: impl Iterator<Item = String>) -> String {
    texts.map(|text| format!(" {text} |")).collect()
}

/// How often a second it is done by all callers together.
async fn rate(ask: impl AsyncFn(usize)) -> f64 {
    let began = Instant::now();
    let caller = async |caller: usize| {
        let mut done = 0;
        while began.elapsed() < ROUND {
            ask(caller + done * CALLERS).await;
            done += 1;
        }
        done
    };
    let done: usize = futures_util::future::join_all((0..CALLERS).map(caller)).await.into_iter().sum();
    done as f64 / began.elapsed().as_secs_f64()
}
