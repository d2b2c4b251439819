//! Documents of which the other model does not take a text.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_the_other_model_refuses_stops_no_other_and_no_log() {
    let (disk, moody) = (MemoryDisk::new(), Moody::default());
    let engine = open_of(&disk, config(), Arc::new(moody)).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    for n in 0..3 {
        let put = vec![document(n, &format!("text number {n}"))];
        engine.put_documents(TENANT, library, put).await.unwrap();
    }
    make(&engine, library).await.unwrap();
    let documents = vec![document(1, "too long for it"), document(7, "another one")];
    engine.put_documents(TENANT, library, documents).await.unwrap();
    engine.put_documents(TENANT, library, vec![document(8, "a third one")]).await.unwrap();
    // Told apart from a model that takes nothing, once it took another.
    let named = async {
        loop {
            let other = engine.embeddings(TENANT, library, None).await.unwrap().other.unwrap();
            let named = other.error.filter(|why| why.contains("takes no text"));
            if let (Some(why), 0, 1) = (named, other.behind_records, other.missing_documents) {
                return why;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let why = tokio::time::timeout(std::time::Duration::from_mins(1), named).await.unwrap();
    assert!(why.contains(&id(1).to_string()) && why.contains("1 in all"), "{why}");
    let began = std::time::Instant::now();
    let refused = engine.activate_generation(TENANT, library).await.unwrap_err();
    assert_eq!(refused.to_string(), why);
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "it is not waited for");
    engine.purge().await.unwrap();
    engine.put_documents(TENANT, library, vec![document(1, "short enough")]).await.unwrap();
    activated(&engine, library).await;
    finds(&engine, library, 1, "short enough").await;
    finds(&engine, library, 8, "a third one").await;
    assert_eq!(texts(&engine, library).await.len(), 5);
    mirror.close().await;
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_documents_that_the_other_model_refuses_before_any_other_stop_none() {
    let (disk, moody) = (MemoryDisk::new(), Moody::default());
    let engine = open_of(&disk, config(), Arc::new(moody)).await;
    let mirror = Mirror::start(engine.clone());
    let library = library(&engine).await;
    engine.put_documents(TENANT, library, vec![document(0, "the first")]).await.unwrap();
    make(&engine, library).await.unwrap();
    // At the head of what is carried, and again among what follows.
    for (bad, good) in [(1..6, 7), (8..12, 13)] {
        let mut documents: Vec<_> = bad.map(|n| document(n, "too long for it")).collect();
        documents.push(document(good, "short enough"));
        engine.put_documents(TENANT, library, documents).await.unwrap();
    }
    let named = async {
        loop {
            let other = engine.embeddings(TENANT, library, None).await.unwrap().other.unwrap();
            let why = other.error.clone().unwrap_or_default();
            if why.contains("9 in all") && other.missing_documents == 9 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), named).await.unwrap();
    mirror.close().await;
    engine.close().await.unwrap();
}
