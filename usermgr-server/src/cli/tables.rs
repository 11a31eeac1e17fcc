//! `migrate`: the tables.

use usermgr_sqlx::SchemaStatus;

use super::failure::Failure;
use super::output::print;
use crate::config::Config;
use crate::serve::{Database, StartError};

pub(super) async fn migrate(config: &Config, check: bool) -> Result<(), Failure> {
    let database = Database::open(config).await.map_err(StartError::from)?;
    let Some(schema) = database.schema().await.map_err(StartError::from)? else {
        return print("this database has no tables to migrate");
    };
    if schema.found > schema.known {
        return print(&format!(
            "the tables are of version {}, made by a newer program; this one knows version {} and works on them",
            schema.found, schema.known
        ));
    }
    if schema.pending.is_empty() {
        return print(&format!("the tables are up to date, version {}", schema.known));
    }
    if check {
        return Err(Failure::Pending(schema));
    }
    database.migrate().await.map_err(StartError::from)?;
    let run = schema.pending.join(", ");
    print(&format!("the tables are up to date, version {}; run now: {run}", schema.known))
}

/// Which migrations there are to run, and what that means for servers that run.
pub(super) fn pending_told(schema: &SchemaStatus) -> String {
    let SchemaStatus { found, known, pending, oldest } = schema;
    let servers = if *found == 0 {
        "there are no tables yet".to_owned()
    } else if schema.is_rolling() {
        format!("servers that know version {oldest} or later may keep running, meanwhile and afterwards")
    } else {
        format!(
            "stop the servers first: those that know version {found} do not work on the tables afterwards, which need \
             version {oldest} or later"
        )
    };
    format!(
        "the tables are of version {found} and this program knows version {known}; not run yet: {}\n{servers}\nrun \
         usermgr-server migrate, or start the server, which runs them",
        pending.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_whether_servers_may_keep_running() {
        let told = |found, oldest| {
            let pending = vec!["0004_jobs", "0005_more"];
            pending_told(&SchemaStatus { found, known: 5, pending, oldest })
        };
        assert!(
            told(2, 2)
                .contains("of version 2 and this program knows version 5; not run yet: 0004_jobs, 0005_more")
        );
        assert!(told(2, 2).contains("servers that know version 2 or later may keep running"));
        assert!(told(4, 2).contains("may keep running"));
        assert!(told(4, 5).contains("stop the servers first"));
        assert!(told(0, 2).contains("there are no tables yet"));
    }
}
