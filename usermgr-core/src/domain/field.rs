//! What is wrong with a request's fields, in terms a form can show.

use std::borrow::Cow;

/// One fault of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldError {
    /// The field's name as in requests, for example `email`; within a profile its path, `profile.address.zip`.
    pub field: Cow<'static, str>,
    /// What is wrong with it.
    pub fault: FieldFault,
}

impl FieldError {
    /// A fault of a field.
    pub fn new(field: impl Into<Cow<'static, str>>, fault: FieldFault) -> Self {
        Self { field: field.into(), fault }
    }
}

/// What can be wrong with a field. [`as_str`](Self::as_str) is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldFault {
    /// It must be given.
    Required,
    /// It is not of its form.
    Invalid,
    /// It has fewer characters than it must have.
    TooShort {
        /// The fewest characters it may have.
        min: usize,
    },
    /// It has more characters than it may have.
    TooLong {
        /// The most characters it may have.
        max: usize,
    },
    /// A password that is among the common ones.
    TooCommon,
    /// A password that is the address or the name of its user.
    SameAsIdentity,
    /// It holds a control character.
    ControlCharacter,
    /// It is not the same as the field it confirms.
    Mismatch,
    /// It is a value of its kind that this call does not take.
    Unsupported,
    /// It is what it was before.
    Unchanged,
    /// There is no such field, or this installation does not take it.
    Unknown,
    /// It is of another JSON type.
    InvalidType,
    /// It takes more bytes than it may.
    TooLarge {
        /// The most bytes it may take.
        max: usize,
    },
    /// It has more levels of lists and objects than it may.
    TooDeep {
        /// The most levels it may have.
        max: usize,
    },
}

impl FieldFault {
    /// The stable name, for machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Invalid => "invalid",
            Self::TooShort { .. } => "too_short",
            Self::TooLong { .. } => "too_long",
            Self::TooCommon => "too_common",
            Self::SameAsIdentity => "same_as_identity",
            Self::ControlCharacter => "control_character",
            Self::Mismatch => "mismatch",
            Self::Unsupported => "unsupported",
            Self::Unchanged => "unchanged",
            Self::Unknown => "unknown",
            Self::InvalidType => "invalid_type",
            Self::TooLarge { .. } => "too_large",
            Self::TooDeep { .. } => "too_deep",
        }
    }
}
