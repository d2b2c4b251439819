//! Messages of a WebSocket as they are read and written. `docs/websocket.md` shows them.

use arrwdb_engine::state::{DocumentId, Seq, TenantId};
use arrwdb_engine::{Embeddings, Moment, PutDocument, Query};
use arrwdb_feed::{Event, EventTypes, Position};
use serde_json::{Value, json};

use crate::config::RequestLimits;
use crate::extract::read_json;
use crate::json::{Fault, Read, Reader, SyntaxError};
use crate::limits::{SOCKET_ACTION_CHARS_MAX, SOCKET_NAME_CHARS_MAX};
use crate::moment::read_moment;
use crate::problem::{self, Problem};
use crate::routes::answers::rfc3339;
use crate::routes::requests::{
    DocumentPatch, Form, read_document, read_patch, read_vector, text_within,
};
use crate::routes::search_pages::refuse_paging;
use crate::routes::search_requests::Wishes;

/// A request, as far as it can be read without knowing what it asks for.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) request_id: String,
    action: String,
    data: &'a str,
}

/// Why a message is no request.
#[derive(Debug)]
pub(super) struct Refusal {
    request_id: Option<String>,
    error: String,
    details: Option<Value>,
}

impl Refusal {
    /// The same for another reason.
    pub(super) fn because(self, problem: &Problem) -> Self {
        Self { error: error_text(problem), details: None, ..self }
    }

    pub(super) fn write(&self) -> String {
        let mut frame = json!({"type": "error", "success": false, "error": self.error});
        if let Some(request_id) = &self.request_id {
            frame["request_id"] = request_id.as_str().into();
        }
        if let Some(details) = &self.details {
            frame["details"] = details.clone();
        }
        frame.to_string()
    }
}

impl<'a> Envelope<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let (mut request_id, mut action, mut data) = (None, None, None);
        let read = Self::fields(message, (&mut request_id, &mut action, &mut data));
        let refusal = match (read, &request_id, &action) {
            (Ok(faults), Some(request_id), Some(action)) if faults.is_empty() => {
                let (request_id, action) = (request_id.clone(), action.clone());
                return Ok(Self { request_id, action, data: data.unwrap_or("{}") });
            }
            (Ok(faults), ..) => {
                let detail = |it: &Fault| json!({"pointer": it.pointer, "detail": it.detail});
                let details = faults.iter().map(detail).collect();
                let error = "Invalid message format".to_owned();
                Refusal { request_id, error, details: Some(details) }
            }
            (Err(broken), ..) => {
                let error = format!("{} (at byte {})", broken.detail, broken.offset);
                Refusal { request_id, error, details: None }
            }
        };
        Err(refusal)
    }

    fn fields(
        message: &'a [u8],
        (request_id, action, data): (
            &mut Option<String>,
            &mut Option<String>,
            &mut Option<&'a str>,
        ),
    ) -> Result<Vec<Fault>, SyntaxError> {
        let mut reader = Reader::new(message)?;
        let r = &mut reader;
        let object = r.object(|r, key| {
            match key {
                "request_id" => *request_id = text_within(r, 1, SOCKET_NAME_CHARS_MAX)?,
                "action" => *action = text_within(r, 1, SOCKET_ACTION_CHARS_MAX)?,
                "data" => *data = r.object_text()?,
                _ignored => {}
            }
            Ok(())
        })?;
        if object.is_some() {
            r.require("request_id", request_id.is_some() || r.has_fault_at("request_id"));
            r.require("action", action.is_some() || r.has_fault_at("action"));
        } else if r.fault_count() == 0 {
            r.fault("must be an object");
        }
        reader.finish()
    }

    /// What is asked for.
    pub(super) fn action(&self, limits: &RequestLimits) -> Result<Action, Problem> {
        let data = self.data.as_bytes();
        match self.action.as_str() {
            "search" => read_find(data, limits).map(|find| Action::Search(Box::new(find))),
            "watch" => read_find(data, limits).map(|find| Action::Watch(Box::new(find))),
            "add" => read_add(data, limits),
            "update" => read_update(data, limits),
            "delete" => read_target(data).map(|target| Action::Delete(target.id)),
            "get" => read_target(data).map(Action::Get),
            "subscribe" => read_subscribe(data),
            "unsubscribe" => read_unsubscribe(data),
            "unwatch" => read_unwatch(data),
            "ping" => Ok(Action::Ping),
            other => {
                let detail = format!("Unknown action: {other}");
                Err(Problem::new(&problem::INVALID_REQUEST, detail))
            }
        }
    }
}

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Action {
    Search(Box<Find>),
    Watch(Box<Find>),
    Unwatch(String),
    Add(Box<PutDocument>),
    Update(DocumentId, Box<DocumentPatch>),
    Delete(DocumentId),
    Get(Target),
    Subscribe(Subscribe),
    /// From these types, or from all.
    Unsubscribe(Option<EventTypes>),
    Ping,
}

/// What a search or a live query is for.
#[derive(Debug, Default)]
pub(super) struct Find {
    text: Option<String>,
    vector: Option<Vec<f32>>,
    pub(super) wishes: Wishes,
    pub(super) session: Option<String>,
    pub(super) watch_id: Option<String>,
}

impl Find {
    /// What to find.
    pub(super) fn query(&mut self) -> Query {
        match self.vector.take() {
            Some(vector) => Query::Vector(vector),
            None => Query::Text(self.text.clone().unwrap_or_default()),
        }
    }

    /// In words, where that is how it was given.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// Which events are to be pushed, and after which place.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub(super) types: EventTypes,
    pub(super) after: Option<Position>,
    pub(super) session: Option<String>,
}

fn read_find(data: &[u8], limits: &RequestLimits) -> Result<Find, Problem> {
    read_json(data, |r| {
        let mut find = Find::default();
        r.object(|r, key| {
            match key {
                "query_text" => find.text = read_query_text(r, limits.query_chars_max)?,
                "embedding" => find.vector = read_vector(r)?,
                "threshold" => find.wishes.read(r, "distance_threshold", limits.k_max)?,
                "session_id" => find.session = text_within(r, 1, SOCKET_NAME_CHARS_MAX)?,
                "watch_id" => find.watch_id = text_within(r, 1, SOCKET_NAME_CHARS_MAX)?,
                key if refuse_paging(r, key)? => {}
                key => find.wishes.read(r, key, limits.k_max)?,
            }
            Ok(())
        })?;
        let faulty = r.has_fault_at("query_text") || r.has_fault_at("embedding");
        match (&find.text, &find.vector) {
            (None, None) => r.require("query_text", faulty),
            (Some(_), Some(_)) => r.fault("give one of query_text and embedding"),
            (Some(_), None) | (None, Some(_)) => {}
        }
        Ok(find)
    })
}

/// A text that says something; one that is blank is as none.
fn read_query_text(r: &mut Reader<'_>, chars_max: usize) -> Read<Option<String>> {
    let text = text_within(r, 0, chars_max)?;
    Ok(text.filter(|text| !text.trim().is_empty()))
}

fn read_add(data: &[u8], limits: &RequestLimits) -> Result<Action, Problem> {
    let document = read_json(data, |r| read_document(r, Form::Message, limits))?;
    if let arrwdb_engine::Content::Text(text) = &document.content
        && text.trim().is_empty()
    {
        return Err(Problem::field("/text", "is required"));
    }
    Ok(Action::Add(Box::new(document)))
}

fn read_update(data: &[u8], limits: &RequestLimits) -> Result<Action, Problem> {
    let Target { id, .. } = read_target(data)?;
    let patch = read_json(data, |r| read_patch(r, limits))?;
    Ok(Action::Update(id, Box::new(patch)))
}

/// A document, and what is to be told of it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: DocumentId,
    pub(super) embeddings: Embeddings,
    pub(super) at: Moment,
}

/// The document of `document_id`, whether `include_embeddings` asks for vectors, and as of when.
fn read_target(data: &[u8]) -> Result<Target, Problem> {
    let (id, embeddings, at) = read_json(data, |r| {
        let (mut id, mut embeddings, mut at) = (None, Embeddings::Omitted, Moment::default());
        r.object(|r, key| {
            match key {
                "document_id" => id = r.string()?,
                "include_embeddings" if r.switch()?.unwrap_or(false) => {
                    embeddings = Embeddings::Included;
                }
                key if read_moment(r, key, &mut at)? => {}
                _ignored => {}
            }
            Ok(())
        })?;
        r.require("document_id", id.is_some() || r.has_fault_at("document_id"));
        Ok((id.unwrap_or_default(), embeddings, at))
    })?;
    let id = id.parse().map_err(|_not_an_id| {
        Problem::new(&problem::INVALID_REQUEST, "Invalid document_id format")
    })?;
    Ok(Target { id, embeddings, at })
}

/// Names of events, one by one or separated by commas.
fn read_types(r: &mut Reader<'_>, names: &mut Vec<String>) -> Read<()> {
    r.array(|r, _index| {
        // More than there are types say nothing more.
        if let Some(name) = text_within(r, 1, SOCKET_ACTION_CHARS_MAX)?
            && names.len() <= arrwdb_feed::EventType::ALL.len()
        {
            names.push(name);
        }
        Ok(())
    })?;
    Ok(())
}

fn types_of(names: &[String]) -> Result<EventTypes, Problem> {
    EventTypes::of(names.iter().map(String::as_str))
        .map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.to_string()))
}

fn read_subscribe(data: &[u8]) -> Result<Action, Problem> {
    let (names, after, session) = read_json(data, |r| {
        let (mut names, mut after, mut session) = (Vec::new(), None, None);
        r.object(|r, key| {
            match key {
                "events" => read_types(r, &mut names)?,
                "after" => after = read_position(r)?,
                "session_id" => session = text_within(r, 1, SOCKET_NAME_CHARS_MAX)?,
                _ignored => {}
            }
            Ok(())
        })?;
        Ok((names, after, session))
    })?;
    Ok(Action::Subscribe(Subscribe { types: types_of(&names)?, after, session }))
}

/// A place in the feed: a number, or the id of an event.
fn read_position(r: &mut Reader<'_>) -> Read<Option<Position>> {
    let position = match r.any()? {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse::<Position>().ok(),
        Value::Number(number) => number.as_u64().map(|seq| Position::after(Seq::new(seq))),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if position.is_none() {
        r.fault("must be a sequence number or the event_id of an event, such as 7 or \"7.0\"");
    }
    Ok(position)
}

fn read_unsubscribe(data: &[u8]) -> Result<Action, Problem> {
    let names = read_json(data, |r| {
        let mut names = Vec::new();
        r.object(|r, key| if key == "events" { read_types(r, &mut names) } else { Ok(()) })?;
        Ok(names)
    })?;
    let all = names.is_empty() || names.iter().any(|name| name == "*");
    Ok(Action::Unsubscribe(if all { None } else { Some(types_of(&names)?) }))
}

fn read_unwatch(data: &[u8]) -> Result<Action, Problem> {
    let id = read_json(data, |r| {
        let mut id = None;
        r.object(|r, key| {
            if key == "watch_id" {
                id = text_within(r, 1, SOCKET_NAME_CHARS_MAX)?;
            }
            Ok(())
        })?;
        r.require("watch_id", id.is_some() || r.has_fault_at("watch_id"));
        Ok(id.unwrap_or_default())
    })?;
    Ok(Action::Unwatch(id))
}

/// The answer to a request: `data` is JSON.
pub(super) fn response(request_id: &str, outcome: &Result<String, Problem>) -> String {
    let id = Value::from(request_id);
    match outcome {
        Ok(data) => format!(
            "{{\"type\":\"response\",\"request_id\":{id},\"success\":true,\"data\":{data},\
             \"error\":null}}"
        ),
        Err(problem) => json!({
            "type": "response",
            "request_id": id,
            "success": false,
            "data": null,
            "error": error_text(problem),
            "error_type": problem.kind().error_type,
        })
        .to_string(),
    }
}

/// What is wrong, as clients of WebSockets know it.
pub(super) fn error_text(problem: &Problem) -> String {
    if problem.kind() == &problem::DOCUMENT_NOT_FOUND {
        return problem.kind().title.to_owned();
    }
    let detail = problem.full_detail();
    let missing = detail.strip_suffix(": is required").and_then(|rest| rest.strip_prefix('/'));
    match missing {
        Some(field) if !field.contains(' ') => format!("{field} is required"),
        Some(_) | None => detail,
    }
}

/// An event that is pushed.
pub(super) fn event(event: Event<'_>) -> String {
    let mut data = String::new();
    event.write_data_json(&mut data);
    let name = event.event_type().name();
    let library = event.library().map(|id| format!("\"library_id\":\"{id}\","));
    let library = library.unwrap_or_default();
    let (position, seq) = (event.position(), event.seq());
    let timestamp = rfc3339(event.at());
    format!(
        "{{\"type\":\"event\",\"event_type\":\"{name}\",\"event_id\":\"{position}\",\"seq\":{seq},\
         {library}\"timestamp\":\"{timestamp}\",\"data\":{data}}}"
    )
}

/// Says that events after a place are kept no longer.
pub(super) fn reset(asked: Position, oldest: Seq) -> String {
    json!({
        "type": "reset",
        "oldest_seq": oldest.get(),
        "after": asked.to_string(),
        "detail": "events after this place are no longer kept: build anew what was built from \
                   them; the oldest that are kept follow",
    })
    .to_string()
}

/// What one socket of a session found, for the others. It has the shape of an answer, so that who
/// handles its own results handles these.
pub(super) fn session_search(
    session: &str,
    connection: uuid::Uuid,
    query_text: Option<&str>,
    data: &str,
) -> String {
    let (session, query) = (Value::from(session), Value::from(query_text));
    format!(
        "{{\"type\":\"session_search\",\"session_id\":{session},\"connection_id\":\"{connection}\",\
         \"query_text\":{query},\"success\":true,\"data\":{data},\"error\":null}}"
    )
}

/// Reads a message as a WebSocket does, and answers it as far as that needs no library: what is
/// wrong with it, if anything is. For who tests the reader with messages that nobody wrote.
pub fn message_problem(message: &[u8], limits: &RequestLimits) -> Option<String> {
    let envelope = match Envelope::read(message) {
        Ok(envelope) => envelope,
        Err(refusal) => return Some(refusal.write()),
    };
    let problem = envelope.action(limits).err()?;
    Some(response(&envelope.request_id, &Err(problem)))
}

/// Names of the types of a set.
pub(super) fn type_names(types: EventTypes) -> Vec<&'static str> {
    let all = arrwdb_feed::EventType::ALL.into_iter();
    all.filter(|event| types.contains(*event)).map(arrwdb_feed::EventType::name).collect()
}

/// The first frame, where it is asked for.
pub(super) fn welcome(
    library: arrwdb_engine::state::LibraryId,
    connection: uuid::Uuid,
    tenant: TenantId,
) -> String {
    let message = format!("Connected to library {library}");
    json!({
        "type": "system", "success": true, "message": message,
        "connection_id": connection.to_string(), "library_id": library.to_string(),
        "tenant_id": tenant.to_string(),
    })
    .to_string()
}

#[cfg(test)]
mod tests;
