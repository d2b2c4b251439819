//! The bodies of jobs: checked before they are submitted, so that a job that is accepted can be done.

use arrwdb_engine::state::limits::{JOB_PARAMETERS_BYTES_MAX, QUERY_CHARS_MAX};
use arrwdb_engine::state::{
    DocumentId, Filter, IndexSpec, JobId, JobInput, JobPriority, LibraryId, ScheduleId, Timestamp,
};
use arrwdb_engine::{IndexChange, NewGeneration};
use axum::body::Body;
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::index_settings::IndexSettings;
use super::ingest::is_end_of_export;
use super::libraries::{read_dimension, read_provider};
use super::requests::{read_time, text_within};
use super::search_requests::{FilterShape, is_filter, read_filter_once};
use crate::app::App;
use crate::extract::{Pace, QueryPairs, next_data, query_fault};
use crate::jobs::{Format, Unsubmitted};
use crate::json::{Read, Reader};
use crate::limits::{COMPARED_QUERIES_MAX, JOB_RETRIES_MAX, LINE_BYTES_MAX};
use crate::ndjson::{Line, LineSplitter, LineText};
use crate::problem::{self, Problem};

/// Documents to add in the background.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"library_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "documents": [{"title": "A title", "texts": ["Some words."]}]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct BatchImport {
    #[schema(format = "uuid")]
    library_id: String,
    /// As the lines of `documents/stream`: unknown keys become custom metadata. They are looked at
    /// when they are imported; one that is wrong fails alone.
    #[schema(value_type = Vec<Object>)]
    documents: Vec<Value>,
    /// `low`, `normal` or `high`.
    #[schema(default = "normal")]
    priority: Option<String>,
    /// Not before this time.
    #[schema(format = "date-time")]
    run_at: Option<String>,
    /// How often it is tried again after a failure that may pass.
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// What to build in the background.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"library_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "index_type": "hnsw"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct IndexRebuild {
    #[schema(format = "uuid")]
    library_id: String,
    /// As of `index/rebuild`.
    index_type: Option<String>,
    #[schema(value_type = Option<Object>)]
    index_config: Option<Value>,
    #[schema(value_type = Option<Object>)]
    quantization_config: Option<Value>,
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(format = "date-time")]
    run_at: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// What to merge in the background.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"library_id": "0191f4a2-7c3e-7abc-8def-0123456789ab"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct IndexOptimize {
    #[schema(format = "uuid")]
    library_id: String,
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(format = "date-time")]
    run_at: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// What to write to a file in the background.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"library_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "format": "csv"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct BatchExport {
    #[schema(format = "uuid")]
    library_id: String,
    /// `json`, `ndjson` (can be imported again) or `csv` (one row for each chunk).
    #[schema(default = "json")]
    format: Option<String>,
    #[schema(default = false)]
    include_embeddings: Option<bool>,
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(format = "date-time")]
    run_at: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// What to delete in the background.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"document_ids": ["0191f4a2-7c3e-7abc-8def-0123456789ab"]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct BatchDelete {
    /// Ids of documents; about 1,600 fit into one job. What is no id fails alone. Give these or a
    /// `filter`.
    #[schema(min_items = 1)]
    document_ids: Option<Vec<String>>,
    /// Every document of the library that has a passage that passes when the job begins; not empty.
    /// See `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// Look in this library only; needed with a `filter`.
    #[schema(format = "uuid")]
    library_id: Option<String>,
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(format = "date-time")]
    run_at: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// Vectors of which model to make in the background.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"library_id": "0191f4a2-7c3e-7abc-8def-0123456789ab", "queries": ["What do people ask?"]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct RegenerateEmbeddings {
    #[schema(format = "uuid")]
    library_id: String,
    /// The model; the configured default when absent.
    embedding_model: Option<String>,
    /// `local`, `cohere` or `openai`; the configured default when absent.
    embedding_provider: Option<String>,
    /// Dimension of the vectors; the model's own when absent.
    #[schema(minimum = 1, maximum = 4096)]
    embedding_dimension: Option<u32>,
    /// Queries by which the models are compared, besides passages of the library.
    #[schema(max_items = 100)]
    queries: Option<Vec<String>>,
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(format = "date-time")]
    run_at: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// When to do it.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"priority": "low"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct WithoutLibrary {
    #[schema(default = "normal")]
    priority: Option<String>,
    #[schema(format = "date-time")]
    run_at: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
}

/// What every job may be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    pub(super) priority: Option<JobPriority>,
    pub(super) run_at: Option<Timestamp>,
    pub(super) retries_max: Option<u32>,
    /// The schedule that it is a run of.
    pub(super) run_of: Option<ScheduleId>,
}

/// A job as it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) library: Option<LibraryId>,
    /// A JSON object.
    pub(super) parameters: String,
    pub(super) common: Common,
}

impl Common {
    /// Reads the value of `key`, if it is one of these; whether it is.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, key: &str) -> Read<bool> {
        match key {
            "priority" => {
                if let Some(name) = r.string()? {
                    self.priority = JobPriority::from_name(&name);
                    if self.priority.is_none() {
                        r.fault(PRIORITIES);
                    }
                }
            }
            "run_at" => self.run_at = read_time(r)?,
            "max_retries" => {
                if let Some(number) = r.whole()? {
                    let number = u32::try_from(number).ok().filter(|it| *it <= JOB_RETRIES_MAX);
                    self.retries_max = number;
                    if number.is_none() {
                        r.fault(format!("must be a whole number from 0 to {JOB_RETRIES_MAX}"));
                    }
                }
            }
            _other => return Ok(false),
        }
        Ok(true)
    }
}

const PRIORITIES: &str = "must be low, normal or high";

/// Reads an object: the library, what every job may be asked, and with `field` what this one is.
fn read(
    r: &mut Reader<'_>,
    needs_library: bool,
    mut field: impl FnMut(&mut Reader<'_>, &str) -> Read<()>,
) -> Read<Asked> {
    let (mut library, mut common) = (None, Common::default());
    r.object(|r, key| {
        if key == "library_id" {
            library = read_library(r)?;
            return Ok(());
        }
        if common.read(r, key)? { Ok(()) } else { field(r, key) }
    })?;
    if needs_library {
        r.require("library_id", library.is_some() || r.has_fault_at("library_id"));
    }
    Ok(Asked { library, parameters: "{}".to_owned(), common })
}

pub(super) fn read_library(r: &mut Reader<'_>) -> Read<Option<LibraryId>> {
    let Some(text) = r.string()? else { return Ok(None) };
    let parsed: Result<LibraryId, _> = text.parse();
    if let Err(error) = &parsed {
        r.fault(error.to_string());
    }
    Ok(parsed.ok())
}

/// The library of a body, whatever else is in it.
pub(super) fn library_alone(r: &mut Reader<'_>) -> Read<Option<LibraryId>> {
    let mut library = None;
    r.object(|r, key| {
        if key == "library_id" {
            library = read_library(r)?;
        }
        Ok(())
    })?;
    Ok(library)
}

pub(super) fn index_rebuild(r: &mut Reader<'_>, current: IndexSpec) -> Read<Asked> {
    let mut settings = IndexSettings::default();
    let mut asked = read(r, true, |r, key| settings.read_of_rebuild(r, key))?;
    asked.parameters = settings_of(settings.resolve(r, current)).to_string();
    Ok(asked)
}

/// A change of an index, as a body would ask for it.
fn settings_of(change: IndexChange) -> Value {
    let numbers = |parameters: Vec<(&'static str, u64)>| {
        parameters.into_iter().map(|(name, number)| (name.to_owned(), number.into())).collect()
    };
    let mut settings = Map::new();
    if let Some(structure) = change.structure {
        let config: Map<String, Value> = numbers(structure.parameters());
        settings.insert("index_type".to_owned(), structure.type_name().into());
        settings.insert("index_config".to_owned(), config.into());
    }
    if let Some(quantization) = change.quantization {
        let mut config: Map<String, Value> = numbers(quantization.parameters());
        config.insert("strategy".to_owned(), quantization.strategy().into());
        settings.insert("quantization_config".to_owned(), config.into());
    }
    Value::Object(settings)
}

pub(super) fn index_optimize(r: &mut Reader<'_>) -> Read<Asked> {
    read(r, true, |_r, _key| Ok(()))
}

pub(super) fn without_library(r: &mut Reader<'_>) -> Read<Asked> {
    let mut asked = read(r, false, |_r, _key| Ok(()))?;
    asked.library = None;
    Ok(asked)
}

pub(super) fn batch_export(r: &mut Reader<'_>) -> Read<Asked> {
    let (mut format, mut embeddings) = (Format::Json, false);
    let mut asked = read(r, true, |r, key| {
        match key {
            "format" => {
                if let Some(name) = r.string()? {
                    match Format::from_name(&name) {
                        Some(known) => format = known,
                        None => r.fault("must be json, ndjson or csv"),
                    }
                }
            }
            "include_embeddings" => embeddings = r.switch()?.unwrap_or(false),
            _ignored => {}
        }
        Ok(())
    })?;
    asked.parameters =
        json!({"format": format.name(), "include_embeddings": embeddings}).to_string();
    Ok(asked)
}

/// The job, and the model that it asks for.
pub(super) fn regenerate_embeddings(r: &mut Reader<'_>) -> Read<(Asked, NewGeneration)> {
    let mut wanted = NewGeneration::default();
    let mut queries = Vec::new();
    let mut asked = read(r, true, |r, key| {
        match key {
            "embedding_model" => wanted.embedding_model = r.string()?,
            "embedding_provider" => wanted.embedding_provider = read_provider(r)?,
            "embedding_dimension" => wanted.embedding_dimension = read_dimension(r)?,
            "queries" => {
                let read = r.array(|r, _index| {
                    queries.extend(text_within(r, 1, QUERY_CHARS_MAX)?);
                    Ok(())
                })?;
                if read.is_some() && queries.len() > COMPARED_QUERIES_MAX {
                    r.fault(format!("must be at most {COMPARED_QUERIES_MAX} queries"));
                }
                let bytes: usize = queries.iter().map(|query| query.len() * 2 + 3).sum();
                if bytes > JOB_PARAMETERS_BYTES_MAX / 2 {
                    r.fault("are too long together: give fewer or shorter ones");
                }
            }
            _ignored => {}
        }
        Ok(())
    })?;
    asked.parameters = json!({
        "embedding_model": wanted.embedding_model,
        "embedding_provider": wanted.embedding_provider,
        "embedding_dimension": wanted.embedding_dimension,
        "queries": queries,
    })
    .to_string();
    Ok((asked, wanted))
}

pub(super) fn batch_delete(r: &mut Reader<'_>) -> Read<Asked> {
    let (mut ids, mut filter): (Option<Vec<String>>, Option<Filter>) = (None, None);
    let mut name = "filter".to_owned();
    let mut asked = read(r, false, |r, key| {
        match key {
            "document_ids" => ids = read_many_ids(r)?,
            key if is_filter(key) => {
                key.clone_into(&mut name);
                read_filter_once(r, &mut filter)?;
            }
            _ignored => {}
        }
        Ok(())
    })?;
    let faulty = r.has_fault_at("document_ids") || r.has_fault_at(&name);
    match (&ids, &filter) {
        (None, None) if !faulty => r.fault_at("document_ids", "is required, or a filter"),
        (Some(_), Some(_)) => r.fault_at(&name, "is given together with ids; give one of them"),
        (None, Some(filter)) if filter.is_empty() => {
            let detail = "may not be empty, or everything would go: delete the library, or say so by \
                          {\"document_id\": {\"$exists\": true}}";
            r.fault_at(&name, detail);
        }
        (None, Some(_)) if asked.library.is_none() => {
            r.require("library_id", r.has_fault_at("library_id"));
        }
        _ => {}
    }
    asked.parameters = match filter {
        Some(filter) => json!({"filter": filter.source()}).to_string(),
        None => json!({"document_ids": ids.unwrap_or_default()}).to_string(),
    };
    if asked.parameters.len() > JOB_PARAMETERS_BYTES_MAX {
        r.fault_at(&name, format!("takes more than {JOB_PARAMETERS_BYTES_MAX} bytes"));
    }
    Ok(asked)
}

/// Ids of as many documents as fit into a job's parameters.
fn read_many_ids(r: &mut Reader<'_>) -> Read<Option<Vec<String>>> {
    let mut given = Vec::new();
    let mut bytes = 0;
    let read = r.array(|r, _index| {
        let Some(text) = r.string()? else { return Ok(()) };
        // What is no id fails when its turn comes, alone; it need not be kept whole.
        let parsed = text.parse::<DocumentId>();
        let text = parsed.map_or_else(
            |_not_an_id| text.chars().take(64).collect::<String>(),
            |id| id.to_string(),
        );
        bytes += text.len() + 3;
        if bytes <= JOB_PARAMETERS_BYTES_MAX - 64 {
            given.push(text);
        }
        Ok(())
    })?;
    if bytes > JOB_PARAMETERS_BYTES_MAX - 64 {
        r.fault(format!(
            "must be at most {} ids: submit more than one job",
            (JOB_PARAMETERS_BYTES_MAX - 64) / 39
        ));
    }
    if read.is_some() && given.is_empty() && bytes == 0 {
        r.fault("must have at least 1 element");
    }
    Ok(read.map(|()| given))
}

/// The job, and the texts of its documents as they came.
pub(super) fn batch_import<'a>(r: &mut Reader<'a>) -> Read<(Asked, Vec<&'a str>)> {
    let (mut library, mut common) = (None, Common::default());
    let mut documents: Option<Vec<&'a str>> = None;
    r.object(|r, key| {
        match key {
            "library_id" => library = read_library(r)?,
            "documents" => {
                let mut given = Vec::new();
                let read = r.array(|r, _index| {
                    given.extend(r.object_text()?);
                    Ok(())
                })?;
                documents = read.map(|()| given);
            }
            key => drop(common.read(r, key)?),
        }
        Ok(())
    })?;
    r.require("library_id", library.is_some() || r.has_fault_at("library_id"));
    r.require("documents", documents.is_some() || r.has_fault_at("documents"));
    let asked = Asked { library, parameters: String::new(), common };
    Ok((asked, documents.unwrap_or_default()))
}

/// Puts the documents of an import where they are kept: into the log with the job where they are
/// few, else into a file.
pub(super) async fn place(
    app: &App,
    id: JobId,
    mut asked: Asked,
    documents: &[&str],
) -> Result<(Asked, Option<(JobInput, Unsubmitted)>), Problem> {
    let bytes: usize = documents.iter().map(|text| text.len() + 1).sum();
    if bytes + 64 <= JOB_PARAMETERS_BYTES_MAX {
        asked.parameters = format!("{{\"documents\":[{}]}}", documents.join(","));
        return Ok((asked, None));
    }
    "{}".clone_into(&mut asked.parameters);
    app.engine().check_disk(true)?;
    let written = tokio::task::block_in_place(|| {
        let mut writer = app.job_files().create_input(id)?;
        for text in documents {
            // As one line; what stands in strings has no ends of lines in JSON.
            let line: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
            writer.line(line.trim_ascii().as_bytes())?;
        }
        Ok(writer)
    });
    let writer = written.map_err(|error| unwritten(&error))?;
    let finished = tokio::task::spawn_blocking(move || writer.finish()).await;
    let finished = finished.map_err(|error| {
        Problem::hidden(&problem::INTERNAL, format!("an input was not finished: {error}"))
    })?;
    Ok((asked, Some(finished.map_err(|error| unwritten(&error))?)))
}

/// Whether a body is lines.
pub(super) fn is_lines(headers: &HeaderMap) -> bool {
    let named = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .is_some_and(|essence| named.contains(&&*essence))
}

/// What the query string says of an import whose body is lines.
pub(super) fn of_query(query: &QueryPairs) -> Result<Asked, Problem> {
    let library = match query.text("library_id") {
        None => None,
        Some(text) => {
            let parsed = text.parse::<LibraryId>();
            Some(parsed.map_err(|error| query_fault("library_id", &error.to_string()))?)
        }
    };
    let priority = match query.text("priority") {
        None => None,
        Some(name) => {
            let known = JobPriority::from_name(name);
            Some(known.ok_or_else(|| query_fault("priority", PRIORITIES))?)
        }
    };
    let run_at = match query.text("run_at") {
        None => None,
        Some(text) => {
            let time: Result<jiff::Timestamp, _> = text.parse();
            let time = time.map_err(|_not_a_time| {
                query_fault("run_at", "must be a time such as 2026-01-31T12:00:00Z")
            })?;
            Some(Timestamp::from_micros(time.as_microsecond()))
        }
    };
    let retries_max = match query.text("max_retries") {
        None => None,
        Some(_number) => {
            let number = query.whole("max_retries", 0, 0..=u64::from(JOB_RETRIES_MAX))?;
            u32::try_from(number).ok()
        }
    };
    let common = Common { priority, run_at, retries_max, run_of: None };
    Ok(Asked { library, parameters: "{}".to_owned(), common })
}

/// Bytes of a body after which the disk is looked at again.
const LOOK_BYTES: usize = 64 << 20;

/// Stores a body of lines, however long it is, as it comes.
pub(super) async fn spool(
    app: &App,
    id: JobId,
    mut body: Body,
) -> Result<(JobInput, Unsubmitted), Problem> {
    let idle = app.config().load.stream_idle_timeout;
    let mut writer = app.job_files().create_input(id).map_err(|error| unwritten(&error))?;
    let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
    let mut pace = Pace::begin(idle);
    let mut looked = LOOK_BYTES;
    let mut stopping = std::pin::pin!(app.stopping());
    let taken = |writer: &mut crate::jobs::InputWriter, line: Line| match line.text {
        // What an export wrote can be sent as it is.
        LineText::Whole(text) if is_end_of_export(&text) => Ok(()),
        LineText::Whole(text) => {
            writer.numbered(line.number, &text).map_err(|error| unwritten(&error))
        }
        LineText::TooLong => {
            let detail = format!("line {} has more than {LINE_BYTES_MAX} bytes", line.number);
            Err(Problem::new(&problem::TOO_LARGE, detail))
        }
    };
    loop {
        let data = tokio::select! {
            data = next_data(&mut body, idle) => data?,
            () = &mut stopping => return Err(arrwdb_engine::EngineError::Closed.into()),
        };
        let Some(data) = data else { break };
        looked += data.len();
        let look = looked >= LOOK_BYTES;
        app.engine().check_disk(look)?;
        looked = if look { 0 } else { looked };
        splitter.push(&data);
        let before = writer.lines();
        while let Some(line) = splitter.next_line() {
            tokio::task::block_in_place(|| taken(&mut writer, line))?;
        }
        if writer.lines() > before {
            pace = Pace::begin(idle);
        } else {
            pace.came(data.len())?;
        }
    }
    if let Some(line) = splitter.last_line() {
        taken(&mut writer, line)?;
    }
    let finished = tokio::task::spawn_blocking(move || writer.finish()).await;
    let finished = finished.map_err(|error| {
        Problem::hidden(&problem::INTERNAL, format!("an input was not finished: {error}"))
    })?;
    finished.map_err(|error| unwritten(&error))
}

fn unwritten(error: &std::io::Error) -> Problem {
    let detail = format!("what the job works on cannot be stored: {error}");
    if error.kind() == std::io::ErrorKind::StorageFull {
        Problem::hidden(&problem::DISK_FULL, detail)
    } else {
        Problem::hidden(&problem::STORAGE, detail)
    }
}
