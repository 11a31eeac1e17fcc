//! `users`: list, make, change and delete.

use clap::{Args, Subcommand};
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::role::Role;
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::port::store::account::UserQuery;
use usermgr_core::{Error, User};

use super::failure::Failure;
use super::import::{self, ImportArguments};
use super::operator::{Operator, Who, new_password};
use super::output::{Listing, or_dash, print, printable, time_text};
use crate::config::Config;
use crate::http::user_json;

/// Before a password is asked for.
fn address(text: &str) -> Result<String, &'static str> {
    match usermgr_core::Email::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("it takes an address such as ana@example.org"),
    }
}

#[derive(Subcommand)]
pub(super) enum UsersCommand {
    /// List users, newest first, or by what a prefix matched
    #[command(after_help = "Example:\n  usermgr-server users list --role admin --status active --json")]
    List(List),
    /// Show one user
    #[command(after_help = "Example:\n  usermgr-server users show ana@example.org")]
    Show {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a user; the password is asked for at the terminal or read from standard input
    #[command(after_help = "Example:\n  usermgr-server users create ana@example.org --role admin")]
    Create {
        #[command(flatten)]
        user: NewUser,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Make a user who sets the first password by a mailed code
    #[command(after_help = "Example:\n  usermgr-server users invite ana@example.org --username 'Ana Ruiz'")]
    Invite(NewUser),
    /// Keep a user from signing in, and end every session
    #[command(after_help = "Example:\n  usermgr-server users disable ana@example.org")]
    Disable {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
    },
    /// Let a disabled user sign in again
    #[command(after_help = "Example:\n  usermgr-server users enable ana@example.org")]
    Enable {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
    },
    /// Delete a user; the address is free at once, and nothing brings the account back
    #[command(after_help = "Example:\n  usermgr-server users delete ana@example.org")]
    Delete {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
    },
    /// Set a user's password, end every session and mail a notice
    #[command(
        after_help = "Example:\n  usermgr-server users set-password ana@example.org --password-stdin < secret"
    )]
    SetPassword {
        #[arg(value_name = "EMAIL_OR_ID")]
        who: Who,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Add users of another system, with the password hashes that it made
    #[command(after_help = import::HELP)]
    Import(ImportArguments),
}

#[derive(Args)]
pub(super) struct List {
    /// Only users whose address or display name begins so
    #[arg(long)]
    prefix: Option<String>,
    /// Only users with this role
    #[arg(long)]
    role: Option<Role>,
    /// Only users of this status: active or disabled
    #[arg(long)]
    status: Option<UserStatus>,
    /// As JSON, one array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct NewUser {
    #[arg(value_parser = address)]
    email: String,
    /// A role beside `user`, such as `admin`; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// The display name
    #[arg(long)]
    username: Option<String>,
    /// The language of mails, such as en or es-MX
    #[arg(long)]
    locale: Option<String>,
}

pub(super) async fn run(config: &Config, command: UsersCommand) -> Result<(), Failure> {
    match command {
        UsersCommand::List(list) => list.run(&Operator::connect(config).await?).await,
        UsersCommand::Show { who, json } => {
            let user = Operator::connect(config).await?.find(&who).await?;
            if json { print(&user_json(&user).to_string()) } else { show(&user) }
        }
        UsersCommand::Create { user, password_stdin } => {
            let password = Some(new_password(password_stdin)?);
            create(config, CreateUser { password, ..user.request() }).await
        }
        UsersCommand::Invite(user) => {
            create(config, user.request()).await?;
            print("invited: the mail with the code leaves with the next worker")
        }
        UsersCommand::Disable { who } => set_status(config, &who, UserStatus::Disabled).await,
        UsersCommand::Enable { who } => set_status(config, &who, UserStatus::Active).await,
        UsersCommand::Delete { who } => {
            let operator = Operator::connect(config).await?;
            let user = operator.find(&who).await?;
            operator.manager.users().delete(Principal::Operator, user.id, &operator.client).await?;
            print(&format!("deleted {}  {}", user.id, user.email))
        }
        UsersCommand::SetPassword { who, password_stdin } => {
            let operator = Operator::connect(config).await?;
            set_password(&operator, &who, password_stdin).await
        }
        UsersCommand::Import(arguments) => import::run(config, arguments).await,
    }
}

impl NewUser {
    fn request(self) -> CreateUser {
        let Self { email, roles, username, locale } = self;
        CreateUser { username, locale, roles: roles.into_iter().collect(), ..CreateUser::new(email) }
    }
}

impl List {
    async fn run(self, operator: &Operator) -> Result<(), Failure> {
        let Self { prefix, role, status, json } = self;
        let size = PageSize::new(PageSize::MAX);
        let mut query = UserQuery { prefix, role, status, after: None, size };
        let mut listing = Listing::new(json, &["id", "status", "email", "roles", "username", "last login"]);
        loop {
            let users = operator.manager.users();
            let page = users.list(Principal::Operator, query.clone(), &operator.client).await?;
            listing.page(&page.items, user_json, columns)?;
            query.after = page.next;
            if query.after.is_none() {
                return listing.end();
            }
        }
    }
}

async fn create(config: &Config, request: CreateUser) -> Result<(), Failure> {
    let operator = Operator::connect(config).await?;
    let user = operator.manager.users().create(Principal::Operator, request, &operator.client).await?;
    print(&line(&user))
}

async fn set_status(config: &Config, who: &Who, status: UserStatus) -> Result<(), Failure> {
    let operator = Operator::connect(config).await?;
    let user = operator.find(who).await?;
    let request = UpdateUser { status: Some(status), ..UpdateUser::default() };
    let users = operator.manager.users();
    let user = users.update(Principal::Operator, user.id, request, &operator.client).await?;
    print(&line(&user))
}

async fn set_password(operator: &Operator, who: &Who, stdin: bool) -> Result<(), Failure> {
    let user = operator.find(who).await?;
    if user.status == UserStatus::Disabled {
        return Err(Failure::Disabled(user.email.as_str().to_owned()));
    }
    let password = new_password(stdin)?;
    let set = operator.manager.users().set_password(user.id, &password, &operator.client).await;
    set.map_err(|error| match error {
        Error::NotFound => Failure::NoUser(who.to_string()),
        Error::Forbidden => Failure::Busy(who.to_string()),
        error => error.into(),
    })?;
    print(&format!("set the password of {}  {}; every session has ended", user.id, user.email))
}

/// A user on one line, after a change.
pub(super) fn line(user: &User) -> String {
    format!("{}  {}  {}  {}", user.id, user.status.as_str(), user.email, roles(user))
}

fn columns(user: &User) -> Vec<String> {
    vec![
        user.id.to_string(),
        user.status.as_str().to_owned(),
        user.email.to_string(),
        roles(user),
        or_dash(user.username.as_ref()),
        or_dash(user.last_login_at.map(time_text)),
    ]
}

fn roles(user: &User) -> String {
    user.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(",")
}

fn show(user: &User) -> Result<(), Failure> {
    let verified = user.email_verified_at.map_or_else(|| "no".to_owned(), time_text);
    for (name, value) in [
        ("id", user.id.to_string()),
        ("email", user.email.to_string()),
        ("verified", verified),
        ("username", printable(&or_dash(user.username.as_ref()))),
        ("roles", roles(user)),
        ("status", user.status.as_str().to_owned()),
        ("locale", or_dash(user.locale.as_ref())),
        ("created", time_text(user.created_at)),
        ("updated", time_text(user.updated_at)),
        ("last login", or_dash(user.last_login_at.map(time_text))),
    ] {
        print(&format!("{name:<10}  {value}"))?;
    }
    Ok(())
}
