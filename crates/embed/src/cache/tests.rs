use super::*;
use crate::models::ProviderKind;

fn spec(provider: ProviderKind, model: &str, dimension: u32) -> ModelSpec {
    ModelSpec { provider, model: model.to_owned(), dimension }
}

#[test]
fn e3_the_key_depends_on_every_part_and_on_nothing_else() {
    let base = spec(ProviderKind::Local, "m", 8);
    let key = |model: &ModelSpec, input, text| CacheKey::new(model, "", input, text);
    let same = key(&base, InputType::Document, "text");
    assert_eq!(same, key(&base.clone(), InputType::Document, "text"));
    let others = [
        key(&spec(ProviderKind::Cohere, "m", 8), InputType::Document, "text"),
        key(&spec(ProviderKind::Local, "n", 8), InputType::Document, "text"),
        key(&spec(ProviderKind::Local, "m", 9), InputType::Document, "text"),
        key(&base, InputType::Query, "text"),
        key(&base, InputType::Document, "Text"),
        // The border between name and text counts.
        key(&spec(ProviderKind::Local, "mt", 8), InputType::Document, "ext"),
        CacheKey::new(&base, "f32", InputType::Document, "text"),
        CacheKey::new(&base, "bf16", InputType::Document, "text"),
        CacheKey::new(&base, "f32t", InputType::Document, "ext"),
        // A picture is never a text, whatever its URL says.
        CacheKey::of_picture(&base, "", InputType::Document, "text"),
        CacheKey::of_picture(&base, "f32", InputType::Document, "text"),
        CacheKey::of_picture(&base, "", InputType::Query, "text"),
    ];
    for (number, other) in others.iter().enumerate() {
        assert_ne!(same, *other, "{number}");
        assert!(!others[..number].contains(other), "{number}");
    }
}

#[test]
fn e3_the_key_of_a_stored_vector_never_changes() {
    let model = spec(ProviderKind::Cohere, "embed-english-v3.0", 1_024);
    let key = CacheKey::new(&model, "", InputType::Query, "red apple");
    let start = [0x70, 0x26, 0xb3, 0xc2, 0xc4, 0x6d, 0xbb, 0xcf];
    assert_eq!(key.0[..8], start);
}

#[tokio::test]
async fn memory_stays_within_its_bound() {
    let config = CacheConfig { dir: None, disk_bytes_max: 0, memory_bytes_max: 64 << 10 };
    let cache = Cache::open(&config);
    let model = spec(ProviderKind::Local, "m", 128);
    for number in 0..10_000 {
        let key = CacheKey::new(&model, "", InputType::Document, &format!("text {number}"));
        cache.put(&key, &[0.5; 128]);
        assert!(cache.memory_bytes() <= 64 << 10);
    }
    assert!(cache.memory_bytes() > 32 << 10);
}

#[tokio::test]
async fn what_is_used_in_the_old_file_moves_to_the_young_one() {
    let dir = tempfile::tempdir().expect("directory");
    let config = CacheConfig {
        dir: Some(dir.path().to_owned()),
        disk_bytes_max: 4 * ENTRY_BYTES_MAX,
        memory_bytes_max: 0,
    };
    let model = spec(ProviderKind::Local, "m", 1_024);
    let key = |number: u32| CacheKey::new(&model, "", InputType::Document, &number.to_string());
    let wait_for = async |cache: &Cache, number: u32| {
        let disk = cache.0.disk.as_ref().expect("files");
        while !disk.files.has(&key(number)) {
            tokio::task::yield_now().await;
        }
    };
    let cache = Cache::open(&config);
    // Seven entries fill a file. The first one is used all along, the second never again.
    for number in 0..40 {
        cache.put(&key(number), &[1.0; 1_024]);
        wait_for(&cache, number).await;
        let found = cache.get(&[key(0)], 1_024).await;
        assert!(matches!(found.as_slice(), [Some(_)]), "after {number}");
    }
    assert!(matches!(cache.get(&[key(1)], 1_024).await.as_slice(), [None]));
    cache.close().await;
    cache.put(&key(99), &[1.0; 1_024]);
    assert!(matches!(cache.get(&[key(99)], 1_024).await.as_slice(), [None]));
}

#[tokio::test]
async fn a_cleared_cache_knows_nothing_and_its_files_hold_nothing() {
    let dir = tempfile::tempdir().expect("works");
    let config = CacheConfig { dir: Some(dir.path().to_owned()), ..CacheConfig::default() };
    let cache = Cache::open(&config);
    let key = CacheKey::new(&spec(ProviderKind::Local, "m", 2), "", InputType::Document, "t");
    cache.put(&key, &[1.25, 2.5]);
    let held = cache.clear().await.expect("works");
    assert!(held > 0);
    assert_eq!(cache.get(&[key], 2).await, [None]);
    for file in std::fs::read_dir(dir.path()).expect("works") {
        let bytes = std::fs::read(file.expect("works").path()).expect("works");
        assert!(!bytes.windows(4).any(|window| window == 1.25_f32.to_le_bytes()));
    }
    cache.put(&key, &[3.0, 4.0]);
    assert_eq!(cache.get(&[key], 2).await[0].as_deref(), Some(&[3.0, 4.0][..]));
    cache.close().await;
}
