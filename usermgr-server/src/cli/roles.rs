//! `roles`: what there is, and giving and taking them.

use clap::Subcommand;
use usermgr_core::Error;
use usermgr_core::domain::role::{Permission, Role};
use usermgr_core::flow::permission::Principal;
use usermgr_core::port::store::account::RolesChange;

use super::failure::Failure;
use super::operator::{Operator, Who};
use super::output::{Listing, print};
use super::users::line;
use crate::config::Config;
use crate::http::role_json;

#[derive(Subcommand)]
pub(super) enum RolesCommand {
    /// List the roles and what each permits
    #[command(after_help = "Example:\n  usermgr-server roles list --json")]
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// Give a role to a user
    #[command(after_help = "Example:\n  usermgr-server roles grant ana@example.org admin")]
    Grant {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
        role: Role,
    },
    /// Take a role from a user
    #[command(after_help = "Example:\n  usermgr-server roles revoke ana@example.org admin")]
    Revoke {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
        role: Role,
    },
}

pub(super) async fn run(config: &Config, command: RolesCommand) -> Result<(), Failure> {
    let operator = Operator::connect(config).await?;
    match command {
        RolesCommand::List { json } => list(&operator, json).await,
        RolesCommand::Grant { who, role } => change(&operator, &who, RolesChange::Grant(role)).await,
        RolesCommand::Revoke { role, .. } if role.as_str() == Role::USER => Err(Failure::RoleOfAll),
        RolesCommand::Revoke { who, role } => change(&operator, &who, RolesChange::Revoke(role)).await,
    }
}

async fn list(operator: &Operator, json: bool) -> Result<(), Failure> {
    let roles = operator.manager.users().roles(Principal::Operator, &operator.client).await?;
    let roles: Vec<_> = roles.into_iter().collect();
    let mut listing = Listing::new(json, &["role", "permissions"]);
    listing.page(
        &roles,
        |(name, permissions)| role_json(name, permissions),
        |(role, permissions)| {
            let permissions: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
            vec![role.to_string(), permissions.join(",")]
        },
    )?;
    listing.end()
}

async fn change(operator: &Operator, who: &Who, change: RolesChange) -> Result<(), Failure> {
    let user = operator.find(who).await?;
    let granted = if let RolesChange::Grant(role) = &change { Some(role.to_string()) } else { None };
    let users = operator.manager.users();
    let changed = users.change_roles(Principal::Operator, user.id, change, None, &operator.client).await;
    let user = changed.map_err(|error| match (error, granted) {
        (Error::Invalid(_), Some(role)) => Failure::NoRole(role),
        (error, _) => error.into(),
    })?;
    print(&line(&user))
}
