//! Vectors of texts seen before (E3: found by provider, model, input type, dimension and hash of
//! the text, and by nothing less).

use std::sync::Arc;

use quick_cache::Weighter;
use sha2::{Digest as _, Sha256};

use crate::config::CacheConfig;
use crate::models::ModelSpec;
use crate::provider::InputType;

/// E3: everything a vector depends on, hashed. Nothing of the text can be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey(pub(crate) [u8; 32]);

impl CacheKey {
    pub(crate) fn new(model: &ModelSpec, input: InputType, text: &str) -> Self {
        let mut hash = Sha256::new();
        let input: u8 = match input {
            InputType::Document => 1,
            InputType::Query => 2,
        };
        // Every field has a length before it or a fixed length, so that no two keys run together.
        let name = model.model.as_bytes();
        hash.update([KEY_VERSION, input]);
        hash.update([u8::try_from(model.provider.name().len()).unwrap_or(u8::MAX)]);
        hash.update(model.provider.name());
        hash.update(model.dimension.to_le_bytes());
        hash.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(name);
        hash.update(text);
        CacheKey(hash.finalize().into())
    }
}

const KEY_VERSION: u8 = 1;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Arc<[f32]>> for ByBytes {
    fn weight(&self, _key: &CacheKey, vector: &Arc<[f32]>) -> u64 {
        u64::try_from(vector.len() * 4 + 96).unwrap_or(u64::MAX)
    }
}

/// Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    memory: Option<Arc<quick_cache::sync::Cache<CacheKey, Arc<[f32]>, ByBytes>>>,
}

impl Cache {
    pub(crate) async fn open(config: &CacheConfig) -> Self {
        let items = usize::try_from(config.memory_bytes_max / 1_632).unwrap_or(usize::MAX).max(16);
        let memory = (config.memory_bytes_max > 0).then(|| {
            Arc::new(quick_cache::sync::Cache::with_weighter(
                items,
                config.memory_bytes_max,
                ByBytes,
            ))
        });
        Cache { memory }
    }

    pub(crate) async fn get(&self, keys: &[CacheKey], _dimension: u32) -> Vec<Option<Arc<[f32]>>> {
        keys.iter().map(|key| self.memory.as_ref().and_then(|memory| memory.get(key))).collect()
    }

    pub(crate) fn put(&self, key: &CacheKey, vector: &[f32]) {
        if let Some(memory) = &self.memory {
            memory.insert(*key, Arc::from(vector));
        }
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.weight())
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        0
    }

    pub(crate) async fn close(&self) {}
}
