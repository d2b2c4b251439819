//! Pages of a search.

use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::{IndexSpec, Metric};
use arrwdb_engine::{Content, EngineError, Mode, PutDocument, Query, SearchPage, SearchRequest};

use crate::indexes::{library_by, small};
use crate::subject::*;

#[tokio::test]
async fn a_page_of_words_behind_a_passage_without_them_is_refused() {
    let engine = open_with(&MemoryDisk::new(), small()).await.unwrap();
    let library = library_by(&engine, IndexSpec::default(), Metric::Cosine).await;
    for n in 0..5 {
        let texts = Content::Texts(vec![format!("word {n}")]);
        let with = PutDocument { id: Some(id(n)), content: texts, ..of_text("") };
        engine.put_documents(TENANT, library, vec![with]).await.unwrap();
    }
    let mute = PutDocument {
        id: Some(id(200)),
        content: Content::Texts(vec!["silence".into()]),
        ..of_text("")
    };
    engine.put_documents(TENANT, library, vec![mute]).await.unwrap();
    let page = |last| SearchRequest {
        page: Some(SearchPage { offset: 1, last: Some(last), ..SearchPage::default() }),
        mode: Mode::Keyword,
        words: Some("word".into()),
        ..SearchRequest::new(Query::Text("word".into()), 2)
    };
    let refused = engine.search(TENANT, library, page((id(200), 0)), None).await.unwrap_err();
    assert!(
        matches!(&refused, EngineError::Invalid { field, .. } if field == "/cursor"),
        "{refused:?}"
    );
}
