//! The reference model obeys the laws.

use std::sync::Arc;

use usermgr_core::conformance::StoreHarness;
use usermgr_core::memory::MemoryStore;
use usermgr_core::port::store::Store;

struct Memory;

#[async_trait::async_trait]
impl StoreHarness for Memory {
    async fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }
}

usermgr_core::conformance_suite!(Memory);
