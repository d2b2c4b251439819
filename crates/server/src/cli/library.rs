//! Which library a command means.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::client::Client;
use super::error::CliError;

/// The name of the library that is meant when none is given.
const DEFAULT_NAME: &str = "default";

/// Libraries listed in an error.
const LISTED_MAX: usize = 10;

/// A library as the list shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Library {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) num_documents: u64,
}

/// What a library is that has to be created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLibrary<'a> {
    pub(crate) index: &'a str,
    pub(crate) metric: &'a str,
    pub(crate) language: &'a str,
}

/// The library called `wanted` by name or id. Without one: the only library there is, or the
/// one named "default".
pub(crate) async fn find(client: &Client, wanted: Option<&str>) -> Result<Library, CliError> {
    let mut all = list(client).await?;
    let Some(wanted) = wanted else {
        if all.len() == 1 {
            return all.pop().ok_or_else(|| which(&[]));
        }
        return match named(&all, DEFAULT_NAME)? {
            Some(library) => Ok(library),
            None => Err(which(&all)),
        };
    };
    named(&all, wanted)?
        .ok_or_else(|| CliError::NoLibrary { wanted: wanted.to_owned(), known: known(&all) })
}

/// The library called `wanted`, created when it is a name nobody has; `true` when it was.
pub(crate) async fn find_or_create(
    client: &Client,
    wanted: &str,
    new: NewLibrary<'_>,
) -> Result<(Library, bool), CliError> {
    let all = list(client).await?;
    if let Some(library) = named(&all, wanted)? {
        return Ok((library, false));
    }
    if Uuid::parse_str(wanted).is_ok() {
        return Err(CliError::NoLibrary { wanted: wanted.to_owned(), known: known(&all) });
    }
    let request = client.request(Method::POST, "v1/libraries")?;
    let NewLibrary { index, metric, language } = new;
    let request = request.json(
        &json!({ "name": wanted, "index_type": index, "metric": metric, "language": language }),
    );
    Ok((client.json(request, "create the library").await?, true))
}

async fn list(client: &Client) -> Result<Vec<Library>, CliError> {
    let request = client.request(Method::GET, "v1/libraries")?;
    client.json(request, "list the libraries").await
}

/// The library whose id or, if there is no such id, whose name is `wanted`.
fn named(all: &[Library], wanted: &str) -> Result<Option<Library>, CliError> {
    if let Ok(id) = Uuid::parse_str(wanted)
        && let Some(library) = all.iter().find(|library| library.id == id)
    {
        return Ok(Some(library.clone()));
    }
    let matching: Vec<&Library> = all.iter().filter(|library| library.name == wanted).collect();
    match matching.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        several => {
            let ids: Vec<String> = several.iter().map(|library| library.id.to_string()).collect();
            let count = several.len();
            Err(CliError::AmbiguousLibrary { name: wanted.to_owned(), count, ids: ids.join(", ") })
        }
    }
}

fn which(all: &[Library]) -> CliError {
    CliError::WhichLibrary { known: known(all) }
}

fn known(all: &[Library]) -> String {
    if all.is_empty() {
        return "the server has none yet; `arrwdb import PATH` makes one".to_owned();
    }
    let names: Vec<String> =
        all.iter().take(LISTED_MAX).map(|library| format!("{:?}", library.name)).collect();
    let more = if all.len() > LISTED_MAX { ", ..." } else { "" };
    format!("the server has {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(id: u128, name: &str) -> Library {
        Library { id: Uuid::from_u128(id), name: name.to_owned(), num_documents: 0 }
    }

    #[test]
    fn an_id_beats_a_name_and_a_shared_name_is_refused() {
        let uuid = Uuid::from_u128(1).to_string();
        let all = [library(1, "a"), library(2, &uuid), library(3, "b"), library(4, "b")];
        assert_eq!(named(&all, &uuid).unwrap().unwrap().name, "a");
        assert!(named(&all, "c").unwrap().is_none());
        let error = named(&all, "b").unwrap_err().to_string();
        assert!(error.starts_with("2 libraries are named \"b\""), "{error}");
    }
}
