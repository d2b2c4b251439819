use super::*;
use std::fmt::Write as _;

fn sources(environment: &[(&str, &str)]) -> Sources {
    Sources {
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Sources::default()
    }
}

#[test]
fn every_default_fits_its_form() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8000));
    assert_eq!(config.limits.k_max, 100);
    assert_eq!(config.rates, None);
    assert_eq!(config.embedding.provider, None);
}

#[test]
fn names_and_aliases_are_unique() {
    let mut names: Vec<&str> = VARIABLES.iter().flat_map(|v| v.aliases).copied().collect();
    names.extend(VARIABLES.iter().map(|v| v.name));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_stronger_source_wins() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("arrwdb.toml"), "port = 1\nhost = \"a\"\nmax_chunk_size = 11\n")
        .unwrap();
    std::fs::write(dir.path().join(".env"), "# note\nexport PORT=2\nHOST='b' # note\n").unwrap();
    let mut all = sources(&[("PORT", "3"), ("API_HOST", "c"), ("LOG_LEVEL", "")]);
    all.working_dir = Some(dir.path().to_owned());
    all.flags.insert("PORT", "4".to_owned());
    let config = Config::load(&all).unwrap();
    assert_eq!((config.port, config.host.as_str(), config.limits.chunk_chars), (4, "c", 11));
    let shown = Values::read(&all).unwrap().print();
    assert!(shown.contains("port = 4  # command line"), "{shown}");
    assert!(shown.contains("host = \"c\"  # environment"), "{shown}");
}

#[test]
fn what_is_printed_is_read_again() {
    let all = sources(&[("PORT", "3"), ("COHERE_API_KEY", "hush"), ("CORS_ORIGINS", "a,b")]);
    let shown = Values::read(&all).unwrap().print();
    assert!(!shown.contains("hush"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    std::fs::write(&path, &shown).unwrap();
    let again = Config::load(&Sources { toml: Some(path), ..Sources::default() }).unwrap();
    let mut first = Config::load(&all).unwrap();
    first.embedding.cohere_api_key = again.embedding.cohere_api_key.clone();
    first.embedding.openai_url_written = again.embedding.openai_url_written;
    assert_eq!(first, again);
}

#[test]
fn every_fault_is_reported_with_name_and_form() {
    let error = Config::load(&sources(&[
        ("PORT", "99999"),
        ("RATE_LIMIT_SEARCH", "often"),
        ("CORS_ENABLED", "perhaps"),
        ("JOB_QUEUE_MAX_WORKERS", "none"),
        ("UNKNOWN", "x"),
    ]))
    .unwrap_err();
    let text = error.to_string();
    assert_eq!(error.0.len(), 4, "{text}");
    assert!(
        text.contains("PORT is \"99999\" (environment): must be a whole number from 0 to 65535")
    );
    assert!(text.contains("30/minute"));
}

#[test]
fn a_server_asked_to_be_closed_does_not_start_open() {
    let error = Config::load(&sources(&[("MULTI_TENANCY_ENABLED", "1")])).unwrap_err();
    assert!(error.to_string().contains("MULTI_TENANCY_ENABLED"), "{error}");
}

#[test]
fn unknown_keys_and_broken_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    for (text, fault) in [
        ("prot = 1", "unknown key \"prot\""),
        ("[port]\nx = 1", "port: a text, number, boolean or list is needed"),
        ("port = ", "x.toml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error =
            Config::load(&Sources { toml: Some(path.clone()), ..Sources::default() }).unwrap_err();
        assert!(error.to_string().contains(fault), "{error}");
    }
    let absent = Sources { toml: Some(dir.path().join("absent")), ..Sources::default() };
    assert!(Config::load(&absent).is_err());
}

#[test]
fn flags_are_read_by_the_name_of_their_variable() {
    let command = add_flags(clap::Command::new("x").arg(clap::Arg::new("port").long("port")));
    let matches = command
        .try_get_matches_from(["x", "--data-dir", "d", "--enable-docs", "false", "--port", "1"])
        .unwrap();
    let flags = read_flags(&matches);
    assert_eq!(flags.get("VECTOR_DB_DATA_DIR").unwrap(), "d");
    assert_eq!(flags.get("ENABLE_DOCS").unwrap(), "false");
    assert_eq!(flags.get("PORT"), None);
}

#[test]
fn secrets_have_no_flag_and_no_debug() {
    assert_eq!(Variable::find("COHERE_API_KEY").unwrap().flag(), None);
    let config = Config::load(&sources(&[("COHERE_API_KEY", "hush")])).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn every_variable_is_in_the_documentation() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let mut text = "# Configuration\n\nSources, the stronger last: `arrwdb.toml` in the working \
        directory (or `serve --config FILE`; keys are the names in lower case, unknown keys are \
        refused), `.env` in the working directory, the environment, the flags of `arrwdb serve`. \
        `arrwdb serve --print-config` shows every value and where it comes from. Variables marked \
        *accepted* are checked and have no effect in this version. This page is made from \
        `crates/server/src/config/table.rs`; `UPDATE=1 cargo test -p arrwdb-server` rewrites it.\n\n\
        | variable | default | form | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for variable in VARIABLES {
        let aliases: Vec<String> =
            variable.aliases.iter().map(|alias| format!(" (or `{alias}`)")).collect();
        let aliases = aliases.concat();
        let default = match variable.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let accepted = match variable.effect {
            Effect::Used => "",
            Effect::Accepted => "*accepted:* ",
        };
        writeln!(
            text,
            "| `{}`{aliases} | {default} | {} | {accepted}{} |",
            variable.name,
            variable.form.describe(),
            variable.about
        )
        .unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert!(std::fs::read_to_string(golden).unwrap() == text, "UPDATE=1 rewrites {golden}");
}

proptest::proptest! {
    /// A file of settings is read, or refused with words; whatever is in it.
    #[test]
    fn any_file_of_settings_is_read_or_refused(
        text in "[a-z_\"'\\[\\]{}=#.,0-9 \\n\u{e9}-]{0,80}",
        name in proptest::sample::select(VARIABLES.iter().map(|v| v.name).collect::<Vec<_>>()),
        value in "[-+0-9a-z\"'.\\[\\]:{} ]{0,24}",
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("arrwdb.toml");
        let line = format!("{} = {value}\n", name.to_lowercase());
        for content in [text.as_bytes(), line.as_bytes(), &bytes] {
            std::fs::write(&path, content).unwrap();
            let sources = Sources { toml: Some(path.clone()), ..Sources::default() };
            if let Err(errors) = Config::load(&sources) {
                proptest::prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}
