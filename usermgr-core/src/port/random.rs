//! Chance.

/// Gives random bytes. The core asks nobody else.
///
/// # Security
/// Secrets are made of these bytes: anything but the operating system's cryptographic source belongs in tests.
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait Random: Send + Sync + std::fmt::Debug {
    /// Fills the whole of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A random duration from zero to `longest`; each is as likely as any other.
pub(crate) fn duration_up_to(longest: std::time::Duration, random: &dyn Random) -> std::time::Duration {
    longest.mul_f64(fraction(random))
}

/// A random number from 0 to 1.
pub(crate) fn fraction(random: &dyn Random) -> f64 {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// The operating system's cryptographic generator.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it holds nothing")]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_types, reason = "this is the port's one real source of chance")]
    fn fill(&self, bytes: &mut [u8]) {
        use rand::Rng as _;
        use rand::rngs::SysRng;
        // It fails on no system that a process can be started on.
        rand::rand_core::UnwrapErr(SysRng).fill_bytes(bytes);
    }
}
