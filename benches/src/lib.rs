//! What usermgr costs: the programs in `benches/` measure parts, `load` the whole under load, `scale` the whole with many
//! users. This is what `load` and `scale` share.

pub mod database;
pub mod machine;

/// Whatever keeps a measurement from being one.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;
