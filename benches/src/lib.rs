//! Benchmarks of usermgr; the programs are in `benches/`. Run them with `cargo bench -p usermgr-benches`.
