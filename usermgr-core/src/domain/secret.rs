//! Values that must not be seen: redacted in `Debug`, without `Display`, `PartialEq` or `Serialize`, wiped on
//! drop, with one way out.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

pub use crate::crypto::weak_secret::SecretWeakness;
use crate::crypto::weak_secret::weakness;

macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SecretString);

        impl $name {
            /// Wraps the secret as it was received or made.
            pub fn new(secret: impl Into<String>) -> Self {
                Self(SecretString::from(secret.into()))
            }

            /// The secret itself. Hand it on, do not keep or print it.
            pub fn expose(&self) -> &str {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        impl From<String> for $name {
            fn from(secret: String) -> Self {
                Self::new(secret)
            }
        }

        impl From<&str> for $name {
            fn from(secret: &str) -> Self {
                Self::new(secret)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }
    };
}

secret_text!(
    /// A password as somebody typed it, not yet checked against any rule.
    Password
);
secret_text!(
    /// A short decimal code as mailed or as typed.
    Code
);
secret_text!(
    /// The secret of a mailed link: 256 bits bound to one code id.
    LinkToken
);
secret_text!(
    /// What a client of a registration holds: it names one pending registration, unguessably. It proves nothing
    /// about the mailbox; only the code does.
    RegistrationToken
);
secret_text!(
    /// What a request carries as `Authorization: Bearer`.
    AccessToken
);
secret_text!(
    /// What renews a session; 256 random bits. Only its digest is stored.
    RefreshToken
);

/// The secret key of an installation: 32 bytes from which every code, link, digest and seal is derived.
///
/// # Security
/// Who has it and the database can derive live codes. Keep it apart from the database and its backups.
///
/// ```
/// use usermgr_core::SecretKey;
///
/// let key = SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?; // openssl rand -base64 32
/// assert!(!format!("{key:?}").contains("q5X0"));
/// assert!(SecretKey::from_base64("too short").is_err());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SecretKey(zeroize::Zeroizing<[u8; 32]>);

/// A text that is no secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret key is 32 bytes in base64 (44 characters); make one with `openssl rand -base64 32`")]
pub struct InvalidSecretKey;

impl SecretKey {
    /// A key of these bytes, which must come from a cryptographic random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(zeroize::Zeroizing::new(bytes))
    }

    /// Reads the usual text form: 32 bytes in base64, standard or URL-safe alphabet, padded or not.
    ///
    /// # Errors
    /// [`InvalidSecretKey`] when the text is not base64, is not of 32 bytes, or is a constant such as all zeros.
    pub fn from_base64(text: &str) -> Result<Self, InvalidSecretKey> {
        use base64::Engine as _;
        let text = text.trim().trim_end_matches('=').replace('-', "+").replace('_', "/");
        let bytes: [u8; 32] = base64::engine::general_purpose::STANDARD_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(InvalidSecretKey)?;
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(InvalidSecretKey);
        }
        Ok(Self::from_bytes(bytes))
    }

    /// Why anybody can guess this key; `None` when nothing is known against it. [`UserManagerBuilder::build`] asks.
    ///
    /// [`UserManagerBuilder::build`]: crate::UserManagerBuilder::build
    pub fn weakness(&self) -> Option<SecretWeakness> {
        weakness(self.expose())
    }

    /// The text form that [`from_base64`](Self::from_base64) reads, for whoever makes and keeps a key.
    pub fn to_base64(&self) -> secrecy::SecretString {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(self.expose()).into()
    }

    /// The key itself.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey([redacted])")
    }
}

/// Which secret key derived or sealed something: eight bytes that tell keys apart and nothing about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretKeyId([u8; 8]);

impl SecretKeyId {
    /// An identifier as it stands in a table.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The identifier's bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// The digest of a secret or of the subject of a limit: 256 bits, safe to store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// A digest as it stands in a table.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}
