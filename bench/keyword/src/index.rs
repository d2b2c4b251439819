//! One index of one field, and the search in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use tantivy::collector::TopDocs;
use tantivy::indexer::NoMergePolicy;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term};

use crate::Outcome;

/// Results of a query.
pub(crate) const K: usize = 10;
/// Bytes that the writer may use before it begins another segment.
const WRITER_BYTES: usize = 1 << 30;

/// An index on disk, of one segment.
pub(crate) struct Built {
    index: Index,
    field: Field,
    analyzer: TextAnalyzer,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
    /// The same by the ends of their names.
    pub(crate) bytes_by_kind: BTreeMap<String, u64>,
    /// Until everything was committed, on one thread.
    pub(crate) add_seconds: f64,
    /// Until that was one segment.
    pub(crate) merge_seconds: f64,
    pub(crate) segments_before_merge: usize,
}

impl Built {
    /// Makes the index anew; `analyzer` is one that tantivy does not know by `name`.
    pub(crate) fn new(
        folder: &Path,
        name: &str,
        analyzer: Option<TextAnalyzer>,
        passages: &[String],
    ) -> Outcome<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(name)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let mut schema = Schema::builder();
        let field =
            schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
        let index = Index::create_in_dir(folder, schema.build())?;
        if let Some(analyzer) = analyzer {
            index.tokenizers().register(name, analyzer);
        }
        let analyzer = index.tokenizers().get(name).ok_or("the analyzer is not known")?;

        let began = Instant::now();
        let mut writer: IndexWriter = index.writer_with_num_threads(1, WRITER_BYTES)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        for passage in passages {
            let mut document = TantivyDocument::default();
            document.add_text(field, passage);
            writer.add_document(document)?;
        }
        writer.commit()?;
        let add_seconds = began.elapsed().as_secs_f64();

        let began = Instant::now();
        let segments = index.searchable_segment_ids()?;
        if segments.len() > 1 {
            writer.merge(&segments).wait()?;
        }
        let merge_seconds = began.elapsed().as_secs_f64();
        writer.garbage_collect_files().wait()?;
        writer.wait_merging_threads()?;
        let bytes_by_kind = sizes(folder)?;
        Ok(Self {
            index,
            field,
            analyzer,
            bytes: bytes_by_kind.values().sum(),
            bytes_by_kind,
            add_seconds,
            merge_seconds,
            segments_before_merge: segments.len(),
        })
    }

    /// A view of it as it is.
    pub(crate) fn search(&self) -> Outcome<Search> {
        let reader = self.index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let searcher = reader.searcher();
        if searcher.segment_readers().len() != 1 {
            return Err(format!("{} segments are left", searcher.segment_readers().len()).into());
        }
        let analyzer = self.analyzer.clone();
        Ok(Search { searcher, field: self.field, analyzer, terms: 0, asked: 0 })
    }
}

/// Bytes by the ends of the files' names.
fn sizes(folder: &Path) -> Outcome<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kind = path.extension().map_or("json".into(), |end| end.to_string_lossy().into_owned());
        // Locks are of the writer, which is gone.
        if kind != "lock" {
            *found.entry(kind).or_default() += entry.metadata()?.len();
        }
    }
    Ok(found)
}

/// Searches on the thread that asks.
pub(crate) struct Search {
    searcher: Searcher,
    field: Field,
    analyzer: TextAnalyzer,
    /// Different terms of all queries so far.
    pub(crate) terms: usize,
    /// Queries so far.
    pub(crate) asked: usize,
}

impl Search {
    /// How many of the ten best there are: passages with any term of the query.
    pub(crate) fn best(&mut self, query: &str) -> Outcome<usize> {
        let query = self.any_term_of(query);
        let found = self.searcher.search(&query, &TopDocs::with_limit(K).order_by_score())?;
        Ok(found.len())
    }

    /// Built by hand, so that nothing of the text is read as an operator. Each term is there once:
    /// twice would only cost time.
    fn any_term_of(&mut self, query: &str) -> BooleanQuery {
        let mut terms = BTreeSet::new();
        let mut tokens = self.analyzer.token_stream(query);
        while let Some(token) = tokens.next() {
            terms.insert(Term::from_field_text(self.field, &token.text));
        }
        drop(tokens);
        self.terms += terms.len();
        self.asked += 1;
        let clauses = terms.into_iter().map(|term| {
            let query: Box<dyn Query> =
                Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
            (Occur::Should, query)
        });
        BooleanQuery::new(clauses.collect())
    }
}
