//! Only addresses of some domains.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{EmailChangeAttempt, Hook, HookError, RegistrationAttempt};
use crate::domain::email::Email;
use crate::domain::refusal::Refusal;

/// Allows addresses of some domains alone, when somebody signs up and when a user wants another address. A subdomain is a
/// domain of its own. Refused with `domain_not_allowed`.
///
/// ```
/// use usermgr_core::port::hook::AllowedDomains;
///
/// let hook = AllowedDomains::new(["example.org", "exámple.com"])?;
/// # Ok::<_, usermgr_core::port::hook::InvalidDomain>(())
/// ```
#[derive(Debug, Clone)]
pub struct AllowedDomains(BTreeSet<String>);

/// A text that no address has for its domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no domain of addresses: {0}")]
#[non_exhaustive]
pub struct InvalidDomain(pub String);

impl AllowedDomains {
    /// Reads the domains, which may have letters of any script and case.
    ///
    /// # Errors
    /// [`InvalidDomain`] with the first that is none.
    pub fn new<D: AsRef<str>>(domains: impl IntoIterator<Item = D>) -> Result<Self, InvalidDomain> {
        let read = |domain: D| match Email::parse(&format!("a@{}", domain.as_ref())) {
            Ok(email) => Ok(email.domain().to_owned()),
            Err(_) => Err(InvalidDomain(domain.as_ref().to_owned())),
        };
        domains.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn check(&self, email: &Email) -> Result<(), HookError> {
        if self.0.contains(email.domain()) {
            return Ok(());
        }
        let refusal = Refusal::new("domain_not_allowed", "Addresses of this domain are not taken here.")?
            .also("es", "Aquí no se admiten direcciones de este dominio.")?;
        Err(refusal.into())
    }
}

#[async_trait]
impl Hook for AllowedDomains {
    async fn before_registration(&self, attempt: &RegistrationAttempt) -> Result<(), HookError> {
        self.check(&attempt.email)
    }

    async fn before_email_change(&self, attempt: &EmailChangeAttempt) -> Result<(), HookError> {
        self.check(&attempt.new_email)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_allowed_as_it_is_written_and_no_other() {
        let hook = AllowedDomains::new(["Example.org", "exámple.com"]).unwrap();
        for address in ["ana@example.org", "Ana@EXAMPLE.org", "ana@exámple.com", "ana@xn--exmple-qta.com"] {
            assert!(hook.check(&Email::parse(address).unwrap()).is_ok(), "{address}");
        }
        for address in ["ana@sub.example.org", "ana@example.org.net", "ana@badexample.org", "ana@example.com"]
        {
            let refused = hook.check(&Email::parse(address).unwrap());
            let Err(HookError::Refused(refusal)) = refused else { panic!("{address}: {refused:?}") };
            assert_eq!(refusal.reason(), "domain_not_allowed");
            assert_ne!(refusal.text("es"), refusal.text("en"));
        }
        for none in ["", "@example.org", "example", "a b.org", "*.example.org"] {
            assert_eq!(AllowedDomains::new([none]).unwrap_err(), InvalidDomain(none.into()));
        }
    }
}
