//! What a password hash costs through the pool, with one caller and with as many as there are threads twice over.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use usermgr_core::Password;
use usermgr_core::crypto::hash_queue::{HashOrigin, HashPurpose};
use usermgr_core::crypto::hasher::HashPool;
use usermgr_core::crypto::password_text::NormalizedPassword;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::random::SystemRandom;

fn hashing(criterion: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return };
    let Ok(pool) = HashPool::start(&HashPolicy::default(), Arc::new(SystemRandom)) else { return };
    let Ok(password) = NormalizedPassword::parse(&Password::new("correct horse battery")) else { return };
    let origin = HashOrigin { purpose: HashPurpose::SignIn, network: "192.0.2.1".to_owned() };
    let hash = || pool.hash(password.clone(), origin.clone());
    criterion.bench_function("hash, one caller", |bencher| {
        bencher.iter(|| runtime.block_on(hash()));
    });
    criterion.bench_function("hash, four callers", |bencher| {
        bencher.iter(|| runtime.block_on(async { tokio::join!(hash(), hash(), hash(), hash()) }));
    });
}

criterion_group!(benches, hashing);
criterion_main!(benches);
