//! Where values come from: TOML file < `.env` < environment < flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::table::{Form, VARIABLES, Variable};
use super::{ConfigError, ConfigErrors};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In this TOML file.
    Toml(PathBuf),
    /// In this `.env` file.
    DotEnv(PathBuf),
    /// In the environment.
    Environment,
    /// On the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Toml(path) | Self::DotEnv(path) => path.display().fmt(f),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file; one that is named must exist.
    pub toml: Option<PathBuf>,
    /// The directory whose `arrwdb.toml` and `.env` are read if they exist.
    pub working_dir: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Flags by the name of their variable.
    pub flags: BTreeMap<&'static str, String>,
}

impl Sources {
    /// The variables of the environment that tell AWS tools of a store and its credentials.
    pub fn aws(&self) -> BTreeMap<String, String> {
        let of_aws =
            |(name, value): &(&String, &String)| name.starts_with("AWS_") && !value.is_empty();
        let found = self.environment.iter().filter(of_aws);
        found.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Values as written, with where.
#[derive(Debug, Clone)]
pub struct Values(BTreeMap<&'static str, (String, Origin)>);

impl Values {
    /// Reads every source; the stronger ones overwrite the weaker.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut values = BTreeMap::new();
        if let Some((path, required)) = toml_file(sources) {
            read_toml(&path, required, &mut values)?;
        }
        if let Some(dir) = &sources.working_dir {
            read_dot_env(&dir.join(".env"), &mut values)?;
        }
        take(&sources.environment, &Origin::Environment, &mut values);
        for (name, value) in &sources.flags {
            values.insert(*name, (value.clone(), Origin::Flag));
        }
        Ok(Self(values))
    }

    /// The value of a variable and where it was written; the default where it was not.
    pub fn get(&self, variable: &Variable) -> (&str, &Origin) {
        match self.0.get(variable.name) {
            Some((value, origin)) => (value, origin),
            None => (variable.default, &Origin::Default),
        }
    }

    /// Every variable as a line of TOML with where its value came from; secrets are masked.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for variable in VARIABLES {
            let (value, origin) = self.get(variable);
            let line = match variable.form {
                _ if value.is_empty() => format!("# {} is not set", variable.key()),
                Form::Secret => format!("{} = \"***\"  # {origin}", variable.key()),
                Form::Switch | Form::Count { .. } => {
                    format!("{} = {}  # {origin}", variable.key(), value.to_lowercase())
                }
                Form::Text | Form::Path | Form::List | Form::Word(_) | Form::Rate => {
                    format!("{} = {}  # {origin}", variable.key(), toml::Value::from(value))
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn toml_file(sources: &Sources) -> Option<(PathBuf, bool)> {
    match (&sources.toml, &sources.working_dir) {
        (Some(path), _) => Some((path.clone(), true)),
        (None, Some(dir)) => Some((dir.join("arrwdb.toml"), false)),
        (None, None) => None,
    }
}

type Written = BTreeMap<&'static str, (String, Origin)>;

/// Takes the known names out of `from`. An empty value counts as unset, as container tools write
/// it; a variable's own name beats its aliases.
fn take(from: &BTreeMap<String, String>, origin: &Origin, values: &mut Written) {
    for variable in VARIABLES {
        let names = std::iter::once(&variable.name).chain(variable.aliases);
        let value = names.filter_map(|name| from.get(*name)).find(|value| !value.is_empty());
        if let Some(value) = value {
            values.insert(variable.name, (value.clone(), origin.clone()));
        }
    }
}

fn read_file(path: &Path, required: bool) -> Result<Option<String>, ConfigErrors> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => {
            Err(ConfigError::File { path: path.to_owned(), line: None, detail: error.to_string() }
                .into())
        }
    }
}

fn read_toml(path: &Path, required: bool, values: &mut Written) -> Result<(), ConfigErrors> {
    let Some(text) = read_file(path, required)? else { return Ok(()) };
    let fault = |detail: String| ConfigError::File { path: path.to_owned(), line: None, detail };
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| fault(e.to_string()))?;
    let mut errors = Vec::new();
    for (key, value) in table {
        match (known_key(&key), toml_text(&value)) {
            (None, _) => errors.push(fault(format!("unknown key {key:?}"))),
            (Some(_), None) => {
                errors.push(fault(format!("{key}: a text, number, boolean or list is needed")));
            }
            (Some(variable), Some(text)) => {
                values.insert(variable.name, (text, Origin::Toml(path.to_owned())));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

fn known_key(key: &str) -> Option<&'static Variable> {
    VARIABLES
        .iter()
        .find(|v| v.key() == key || v.aliases.iter().any(|alias| alias.to_lowercase() == key))
}

fn toml_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(toml_text).collect();
            items.map(|items| items.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn read_dot_env(path: &Path, values: &mut Written) -> Result<(), ConfigErrors> {
    let Some(text) = read_file(path, false)? else { return Ok(()) };
    let mut pairs = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        match dot_env_line(line) {
            Ok(None) => {}
            Ok(Some((name, value))) => {
                pairs.insert(name, value);
            }
            Err(detail) => {
                let line = Some(at.saturating_add(1));
                return Err(ConfigError::File { path: path.to_owned(), line, detail }.into());
            }
        }
    }
    take(&pairs, &Origin::DotEnv(path.to_owned()), values);
    Ok(())
}

/// One line: blank, a comment, or `NAME=value` with optional `export` and quotes. A comment after
/// an unquoted value begins with ` #`.
fn dot_env_line(line: &str) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let Some((name, value)) = line.split_once('=') else {
        return Err("NAME=value is needed".to_owned());
    };
    let value = value.trim();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let value = match quote {
        Some(quote) => match value[1..].split_once(quote) {
            Some((inside, _comment)) => inside,
            None => return Err("the closing quote is missing".to_owned()),
        },
        None => value.split_once(" #").map_or(value, |(before, _comment)| before).trim_end(),
    };
    Ok(Some((name.trim().to_owned(), value.to_owned())))
}
