//! `migrate` and `maintenance`: the tables, and what is over in them.

use super::failure::Failure;
use super::output::print;
use crate::config::Config;
use crate::serve::{self, Database, StartError};

pub(super) async fn migrate(config: &Config, check: bool) -> Result<(), Failure> {
    let database = Database::open(config).await.map_err(StartError::from)?;
    let pending = database.pending_migrations().await.map_err(StartError::from)?;
    if check {
        return if pending == 0 {
            print("the tables are up to date")
        } else {
            Err(Failure::Pending(pending))
        };
    }
    database.migrate().await.map_err(StartError::from)?;
    print(&format!("the tables are up to date; {pending} migration(s) run"))
}

pub(super) async fn maintain(config: &Config) -> Result<(), Failure> {
    let purged = serve::manager(config).await?.upkeep().run_once().await?;
    print(&format!("{purged:?}"))
}
