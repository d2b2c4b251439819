//! Hits grouped by their documents: how a body asks for that, and how groups are answered.

use std::sync::Arc;

use arrwdb_engine::state::DocumentId;
use arrwdb_engine::{GROUP_SIZE, GROUP_SIZE_MAX, Grouping, Hit};
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::{DocumentMetadata, as_text};
use super::keyword_requests::read_name;
use crate::json::{Read, Reader};
use crate::problem::Problem;

/// What hits can be grouped by.
const GROUPINGS: [(&str, GroupBy); 1] = [("document", GroupBy::Document)];

/// What hits are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupBy {
    Document,
}

/// What hits are grouped by.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes a value; it is read by name")]
pub(super) enum GroupByName {
    /// Their documents.
    Document,
}

/// How a body asks for groups.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct GroupWishes {
    by: Option<GroupBy>,
    size: Option<usize>,
}

impl GroupWishes {
    /// Reads the value of `key`; false if it is none of groups.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, key: &str) -> Read<bool> {
        match key {
            "group_by" => self.by = read_name(r, &GROUPINGS)?.or(self.by),
            "group_size" => {
                let Some(size) = r.whole()? else { return Ok(true) };
                let size =
                    usize::try_from(size).ok().filter(|it| (1..=GROUP_SIZE_MAX).contains(it));
                if size.is_none() {
                    r.fault(format!("must be from 1 to {GROUP_SIZE_MAX}"));
                }
                self.size = size;
            }
            _other => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses a size of groups that are not asked for.
    pub(super) fn check(self) -> Result<(), Problem> {
        match (self.by, self.size) {
            (None, Some(_)) => {
                let detail = "is of groups: leave it out, or give group_by as well";
                Err(Problem::field("/group_size", detail))
            }
            (Some(_), _) | (None, None) => Ok(()),
        }
    }

    /// Refuses groups where passages are answered one by one.
    pub(super) fn refuse(self) -> Result<(), Problem> {
        let detail = "is not for this search, which answers passages one by one";
        if self.by.is_some() { Err(Problem::field("/group_by", detail)) } else { self.check() }
    }

    /// How hits are grouped, where they are.
    pub(super) fn grouping(self) -> Option<Grouping> {
        self.by.map(|GroupBy::Document| Grouping { size: self.size.unwrap_or(GROUP_SIZE) })
    }
}

/// A document that was found, with its best passages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Group<T: ToSchema> {
    #[schema(value_type = String, format = "uuid")]
    #[serde(serialize_with = "as_text")]
    document_id: DocumentId,
    document_title: String,
    /// What belongs to the document as a whole.
    metadata: DocumentMetadata,
    /// That of its best passage, which the document is ranked by.
    #[schema(example = 0.766)]
    score: Option<f64>,
    /// That of its best passage; null in a search by keywords alone.
    #[schema(example = 0.234)]
    distance: Option<f32>,
    /// Its best passages, best first: at most `group_size`.
    passages: Vec<T>,
}

/// Hits as they are answered: one by one, or in groups.
#[derive(Debug)]
pub(super) struct Answered<T: ToSchema> {
    /// None where they are grouped.
    pub(super) results: Vec<T>,
    pub(super) groups: Option<Vec<Group<T>>>,
    /// Passages, those of groups included.
    pub(super) total: usize,
}

impl<T: ToSchema> Answered<T> {
    /// What `shown` makes of hits; one that cannot be shown is left out.
    pub(super) fn of(
        hits: Vec<Hit>,
        wishes: GroupWishes,
        shown: impl Fn(Hit) -> Option<T>,
    ) -> Self {
        if wishes.by.is_none() {
            let results: Vec<T> = hits.into_iter().filter_map(shown).collect();
            return Self { total: results.len(), results, groups: None };
        }
        let groups = groups(hits, shown);
        let total = groups.iter().map(|group| group.passages.len()).sum();
        Self { results: Vec::new(), groups: Some(groups), total }
    }
}

/// The groups of hits, which come one document after the other.
fn groups<T: ToSchema>(hits: Vec<Hit>, shown: impl Fn(Hit) -> Option<T>) -> Vec<Group<T>> {
    let mut groups: Vec<Group<T>> = Vec::new();
    for mut hit in hits {
        let document = hit.document.take();
        let last = groups.last_mut().filter(|group| group.document_id == hit.document_id);
        if let Some(group) = last {
            group.passages.extend(shown(hit));
            continue;
        }
        let Some(document) = document else { continue };
        let anew = hit.rescored.as_ref().map(|rescored| rescored.score);
        groups.push(Group {
            document_id: hit.document_id,
            document_title: hit.document_title.clone(),
            metadata: DocumentMetadata::of(Arc::unwrap_or_clone(document)),
            score: anew.unwrap_or_else(|| Some(as_written(hit.score))),
            distance: hit.distance,
            passages: shown(hit).into_iter().collect(),
        });
    }
    groups
}

/// The number that is written as the score itself is.
fn as_written(score: f32) -> f64 {
    score.to_string().parse().unwrap_or_else(|_never| f64::from(score))
}
