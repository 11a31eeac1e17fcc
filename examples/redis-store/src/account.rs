//! What counts before it does something to an account. All else is done by the store under this one.

use async_trait::async_trait;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::Page;
use usermgr_core::domain::user::User;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::account::{
    AccountStore, CreateUser, CredentialsQuery, CredentialsView, DeleteUser, EmailChangeRequested,
    ImportUsers, KnownNetwork, LimitsQuery, LimitsView, PasswordReplaced, Register, Registered,
    ReplacePassword, RequestEmailChange, UpdateUser, UserCreated, UserCursor, UserDeleted, UserImported,
    UserQuery, UserUpdated,
};

use super::RedisStore;

#[async_trait]
impl AccountStore for RedisStore {
    async fn register(&self, mut command: Register) -> Result<Registered, StoreError> {
        let (throttle, tries) = (std::mem::take(&mut command.throttle), command.tries.take());
        self.to_its_end(async move |store| {
            let counted = store.redis.count(command.id.as_uuid(), &throttle, tries.as_ref(), command.now);
            match counted.await? {
                Some(retry_after) => Ok(Registered::Throttled { retry_after }),
                None => store.under.register(command).await,
            }
        })
        .await
    }

    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError> {
        let LimitsQuery { now, rules, network } = query;
        let is_known = match network {
            Some(KnownNetwork { email, network, since }) => {
                let found = self.under.credentials(CredentialsQuery { now, email, guard: None }).await?.user;
                match found {
                    Some(found) => self.redis.knows(found.user.id, &network, since).await?,
                    None => false,
                }
            }
            None => false,
        };
        let waits = self.redis.look(&rules, now).await?;
        let used_up = rules.iter().zip(waits).filter_map(|(rule, wait)| Some((rule.key, wait?))).collect();
        Ok(LimitsView { used_up, is_known })
    }

    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError> {
        self.under.create_user(command).await
    }

    async fn credentials(&self, mut query: CredentialsQuery) -> Result<CredentialsView, StoreError> {
        let (guard, now) = (query.guard.take(), query.now);
        let mut view = self.under.credentials(query).await?;
        if let Some(guard) = guard {
            let user = view.user.as_ref().map(|found| found.user.id);
            view.throttled = self.redis.look_at_guard(&guard, user, now).await?;
        }
        Ok(view)
    }

    async fn replace_password(&self, mut command: ReplacePassword) -> Result<PasswordReplaced, StoreError> {
        if command.throttle.is_empty() {
            return self.under.replace_password(command).await;
        }
        let throttle = std::mem::take(&mut command.throttle);
        self.to_its_end(async move |store| {
            let counted = store.redis.count(command.audit.id.as_uuid(), &throttle, None, command.now);
            match counted.await? {
                Some(retry_after) => Ok(PasswordReplaced::Throttled { retry_after }),
                None => store.under.replace_password(command).await,
            }
        })
        .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.under.user(id).await
    }

    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError> {
        self.under.users(query).await
    }

    async fn update_user(&self, mut command: UpdateUser) -> Result<UserUpdated, StoreError> {
        if command.throttle.is_empty() {
            return self.under.update_user(command).await;
        }
        let throttle = std::mem::take(&mut command.throttle);
        self.to_its_end(async move |store| {
            let counted = store.redis.count(command.audit.id.as_uuid(), &throttle, None, command.now);
            match counted.await? {
                Some(retry_after) => Ok(UserUpdated::Throttled { retry_after }),
                None => store.under.update_user(command).await,
            }
        })
        .await
    }

    async fn delete_user(&self, mut command: DeleteUser) -> Result<UserDeleted, StoreError> {
        if command.throttle.is_empty() {
            return self.under.delete_user(command).await;
        }
        let throttle = std::mem::take(&mut command.throttle);
        self.to_its_end(async move |store| {
            let counted = store.redis.count(command.audit.id.as_uuid(), &throttle, None, command.now);
            match counted.await? {
                Some(retry_after) => Ok(UserDeleted::Throttled { retry_after }),
                None => store.under.delete_user(command).await,
            }
        })
        .await
    }

    async fn request_email_change(
        &self,
        mut command: RequestEmailChange,
    ) -> Result<EmailChangeRequested, StoreError> {
        let (throttle, tries) = (std::mem::take(&mut command.throttle), command.tries.take());
        self.to_its_end(async move |store| {
            let counted =
                store.redis.count(command.code.id.as_uuid(), &throttle, tries.as_ref(), command.now);
            match counted.await? {
                Some(retry_after) => Ok(EmailChangeRequested::Throttled { retry_after }),
                None => store.under.request_email_change(command).await,
            }
        })
        .await
    }

    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError> {
        self.under.import_users(command).await
    }
}
