//! Made-up values, to see what a mail looks like before it is sent.

use time::Duration;

use super::MailValues;
use super::texts::Carries;
use crate::domain::code::CodePurpose;
use crate::domain::mail::MailKind;
use crate::policy::Policies;

const CODE: &str = "0482159637";
const TOKEN: &str = "sample-4cQ2m8uXoV1yT7bRk9wZsEaJ0hLpDfGn6iUxCvBtMq3";

/// What a sample mail tells: the service's name, address and times as the policies say, and a receiver, a code and a link
/// that are nobody's.
#[derive(Debug, Clone)]
pub struct SampleMail {
    service_name: String,
    public_url: String,
    code: String,
    link: String,
    ttl: Duration,
}

impl SampleMail {
    /// The address that sample mails are for.
    pub const EMAIL: &'static str = "ana@example.org";

    /// A sample of this kind, as it would be sent under these policies.
    pub fn new(kind: MailKind, policies: &Policies) -> Self {
        let purpose = match kind {
            MailKind::VerifyEmail => CodePurpose::EmailVerification,
            _ => CodePurpose::ResetPassword,
        };
        let digits = policies.codes.length.for_purpose(purpose).digits();
        let page = if kind == MailKind::EmailChanged { "undo-email-change" } else { "reset-password" };
        let ttl = match Carries::of(kind) {
            Carries::Code => policies.codes.ttl,
            Carries::Link if kind == MailKind::EmailChanged => policies.links.undo_ttl,
            Carries::Link => policies.links.ttl,
            Carries::Nothing => policies.deletion.grace,
        };
        Self {
            service_name: policies.mail.service_name.clone(),
            public_url: policies.mail.public_url.clone(),
            code: CODE.chars().take(digits.into()).collect(),
            link: format!("{}/{page}#token={TOKEN}", policies.mail.public_url),
            ttl,
        }
    }

    /// The values for [`MailTemplates::render`](super::MailTemplates::render).
    pub fn values(&self) -> MailValues<'_> {
        MailValues {
            service_name: &self.service_name,
            public_url: &self.public_url,
            email: Self::EMAIL,
            username: Some("Ana"),
            code: Some(&self.code),
            link: Some(&self.link),
            ttl: self.ttl,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BuiltInTemplates, MailTemplates as _};
    use super::*;
    use crate::domain::code::CodeLength;

    #[test]
    fn a_sample_says_what_is_in_force() {
        let mut policies = Policies::default();
        policies.codes.length = CodeLength::new(4).unwrap();
        let text = |kind| {
            let sample = SampleMail::new(kind, &policies);
            BuiltInTemplates::default().render(kind, "en", &sample.values()).unwrap().text
        };
        assert!(text(MailKind::VerifyEmail).contains("\n0482\n"), "{}", text(MailKind::VerifyEmail));
        assert!(text(MailKind::ResetPasswordCode).contains("\n048215\n"));
        assert!(text(MailKind::ResetPasswordLink).contains("http://localhost:8000/reset-password#token="));
        assert!(text(MailKind::ResetPasswordLink).contains("30 minutes"));
        assert!(text(MailKind::EmailChanged).contains("/undo-email-change#token="));
        assert!(
            text(MailKind::EmailChanged).contains("7 days")
                || text(MailKind::EmailChanged).contains("168 hours")
        );
        assert!(text(MailKind::AccountDeleted).contains("30 days"));
    }
}
