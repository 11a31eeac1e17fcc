//! A host with a job of its own: each day at 03:00 UTC the pictures that are older than so many days are removed, once
//! however many instances run.
//!
//! ```sh
//! purge_pictures sqlite://users.db file:///srv/pictures 30
//! ```
//!
//! With the feature `s3` the same program takes `s3://bucket/prefix`, configured by the variables of `object_store`:
//! `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and for MinIO `AWS_ENDPOINT=http://minio:9000` and
//! `AWS_ALLOW_HTTP=true`.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, future};
use object_store::path::Path;
use object_store::{Error, ObjectStore};
use time::Duration;
use usermgr_core::domain::job::Schedule;
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::worker::{Job, JobResult, NextRun, Stop};
use usermgr_core::{SecretKey, UserManager};
use usermgr_smtp::{Console, Sender};
use usermgr_sqlx::SqliteStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(database), Some(pictures), Some(days)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: purge_pictures DATABASE_URL PICTURES_URL DAYS".into());
    };
    #[expect(clippy::disallowed_methods, reason = "how object_store is configured for S3")]
    let (pictures, folder) = object_store::parse_url_opts(&pictures.parse()?, std::env::vars())?;
    let pictures: Arc<dyn ObjectStore> = Arc::from(pictures);
    let keep = Duration::days(days.parse()?);

    let store = SqliteStore::connect(&database, 4).await?;
    store.migrate().await?;
    let users = UserManager::builder()
        .store(Arc::new(store))
        .mailer(Arc::new(Console::new(Sender::parse("Example <noreply@example.org>")?)))
        // Keep a real one in a file that only the program can read.
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .job(Job::new("old-pictures".parse()?, Schedule::DailyAt(time::macros::time!(03:00)), move |stop| {
            purge(Arc::clone(&pictures), folder.clone(), keep, stop)
        }))
        .build()?;

    for job in users.scheduler().list().await?.iter().filter(|job| job.job.as_str() == "old-pictures") {
        match job.next {
            NextRun::Due => println!("old-pictures is due"),
            NextRun::At(at) => println!("old-pictures runs next at {at}"),
            NextRun::Running { .. } => println!("old-pictures runs elsewhere"),
        }
    }
    let workers = users.start_workers();
    tokio::signal::ctrl_c().await?;
    workers.stop().await;
    Ok(())
}

/// Removes what was last changed longer ago than it is kept.
async fn purge(pictures: Arc<dyn ObjectStore>, folder: Path, keep: Duration, stop: Stop) -> JobResult {
    let before = (SystemClock.now() - keep).unix_timestamp();
    let old = pictures
        .list(Some(&folder))
        .try_filter(move |picture| future::ready(picture.last_modified.timestamp() < before))
        .map_ok(|picture| picture.location)
        .boxed();
    let mut removals = pictures.delete_stream(old);
    let mut removed = 0_u32;
    while let Some(removal) = removals.next().await {
        match removal {
            Ok(_) => removed += 1,
            // Somebody else removed it meanwhile.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if stop.is_requested() {
            return Err(format!("stopped after {removed} pictures").into());
        }
    }
    println!("removed {removed} pictures older than {} days", keep.whole_days());
    Ok(format!("removed {removed} pictures"))
}
