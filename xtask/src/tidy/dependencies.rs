//! The rules of deny.toml that need no network, so that they hold where cargo-deny is not installed:
//! which crate may name which, which licences may come in, and from where.
//!
//! The file is cargo-deny's own and the only source of the rules; what of it is read here means what
//! cargo-deny documents. Only what is read here is listed below, the rest is cargo-deny's.

use std::collections::BTreeSet;

use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use super::{Error, Finding};
use crate::workspace::{Metadata, Package, Workspace};

const FILE: &str = "deny.toml";

/// What is read of deny.toml.
#[derive(Debug, Deserialize)]
struct Policy {
    graph: Graph,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// Further licences for one crate.
#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

/// A crate that nobody but its wrappers may depend on; without wrappers, that may not come in at all.
#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    wrappers: Option<Vec<String>>,
    #[serde(default)]
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    allow_registry: Vec<String>,
}

/// Every rule with what breaks it.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<(&'static str, Vec<Finding>)>, Error> {
    let path = workspace.root().join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
    let policy: Policy = toml::from_str(&text).map_err(|source| Error::Toml { path, source })?;
    let mut arguments = vec!["--all-features"];
    for target in &policy.graph.targets {
        arguments.extend(["--filter-platform", target.as_str()]);
    }
    let metadata = workspace.metadata(&arguments)?;
    Ok(vec![
        ("direction of dependencies", direction(&policy, &metadata)),
        ("licences", licences(&policy, &metadata)?),
        ("sources of dependencies", sources(&policy, &metadata)),
    ])
}

/// The packages of the graph for the platforms that count.
fn in_graph(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let ids: BTreeSet<&str> = nodes.map(|node| node.id.as_str()).collect();
    metadata.packages.iter().filter(move |package| ids.contains(package.id.as_str()))
}

/// Nobody names a crate that is kept for others: not for its code, its tests or its build.
fn direction(policy: &Policy, metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    let listed = |name: &str| policy.bans.deny.iter().any(|ban| ban.name == name);
    for package in in_graph(metadata) {
        let who = format!("{} {}", package.name, package.version);
        for ban in &policy.bans.deny {
            let named = package.dependencies.iter().any(|dependency| dependency.name == ban.name);
            match &ban.wrappers {
                Some(wrappers) if named && !wrappers.contains(&package.name) => {
                    let only = wrappers.join(", ");
                    let what =
                        format!("{who} depends on {}; only {only} may: {}", ban.name, ban.reason);
                    findings.push(Finding::of(FILE, what));
                }
                None if package.name == ban.name => {
                    findings.push(Finding::of(FILE, format!("{who} is banned: {}", ban.reason)));
                }
                Some(_) | None => {}
            }
        }
        for member in members(metadata).filter(|member| !listed(&member.name)) {
            if package.dependencies.iter().any(|dependency| dependency.name == member.name) {
                let what = format!("{who} depends on {}, which nobody may", member.name);
                findings.push(Finding::of(FILE, what));
            }
        }
    }
    findings
}

fn members(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id))
}

/// Every package of the graph can be had under licences that are allowed.
fn licences(policy: &Policy, metadata: &Metadata) -> Result<Vec<Finding>, Error> {
    let allowed = licensees(&policy.licenses.allow)?;
    let mut findings = Vec::new();
    for package in in_graph(metadata) {
        let mut allowed = allowed.clone();
        for exception in policy.licenses.exceptions.iter().filter(|it| it.name == package.name) {
            allowed.extend(licensees(&exception.allow)?);
        }
        let what = match &package.license {
            None => "names no licence".to_owned(),
            Some(written) => match Expression::parse_mode(written, ParseMode::LAX) {
                Err(error) => {
                    format!("licence `{written}` is no SPDX expression: {}", error.reason)
                }
                Ok(expression) if is_allowed(&expression, &allowed) => continue,
                Ok(_) => format!("licence `{written}` is not allowed"),
            },
        };
        findings.push(Finding::of(FILE, format!("{} {}: {what}", package.name, package.version)));
    }
    Ok(findings)
}

fn licensees(names: &[String]) -> Result<Vec<Licensee>, Error> {
    let parse = |name: &String| {
        Licensee::parse(name).map_err(|error| Error::Licence {
            name: name.clone(),
            reason: error.reason.to_string(),
        })
    };
    names.iter().map(parse).collect()
}

fn is_allowed(expression: &Expression, allowed: &[Licensee]) -> bool {
    expression.evaluate(|required| allowed.iter().any(|licensee| licensee.satisfies(required)))
}

/// Every package of the graph comes from a registry that is allowed, or from the workspace.
fn sources(policy: &Policy, metadata: &Metadata) -> Vec<Finding> {
    let allowed = |source: &str| {
        let url = source.strip_prefix("registry+").unwrap_or(source);
        policy.sources.allow_registry.iter().any(|registry| registry == url)
    };
    let mut findings = Vec::new();
    for package in in_graph(metadata) {
        let elsewhere = package.source.as_deref().filter(|source| !allowed(source));
        findings.extend(elsewhere.map(|source| {
            Finding::of(FILE, format!("{} {} comes from {source}", package.name, package.version))
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [graph]
        targets = []
        [licenses]
        allow = ["Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT"]
        exceptions = [{ crate = "special", allow = ["MPL-2.0"] }]
        [bans]
        deny = [
            { crate = "kernel", wrappers = ["index"], reason = "reached through an index" },
            { crate = "index", wrappers = ["state"] },
            { crate = "openssl-sys" },
        ]
        [sources]
        allow-registry = ["https://good"]
    "#;

    /// Packages as (name, licence, dependencies); the first `members` are the workspace's.
    fn metadata(members: usize, packages: &[(&str, Option<&str>, &[&str])]) -> Metadata {
        let json: Vec<serde_json::Value> = packages
            .iter()
            .map(|(name, license, dependencies)| {
                let dependencies: Vec<_> =
                    dependencies.iter().map(|name| serde_json::json!({ "name": name })).collect();
                serde_json::json!({
                    "id": name, "name": name, "version": "1.0.0", "license": license,
                    "source": "registry+https://good", "dependencies": dependencies, "targets": [],
                })
            })
            .collect();
        let ids: Vec<&str> = packages.iter().map(|(name, ..)| *name).collect();
        let nodes: Vec<_> = ids.iter().map(|id| serde_json::json!({ "id": id })).collect();
        serde_json::from_value(serde_json::json!({
            "packages": json, "workspace_members": ids[..members], "resolve": { "nodes": nodes },
        }))
        .unwrap()
    }

    fn policy() -> Policy {
        toml::from_str(POLICY).unwrap()
    }

    fn texts(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.what.as_str()).collect()
    }

    const MIT: Option<&str> = Some("MIT");

    #[test]
    fn the_allowed_direction_passes() {
        let graph = metadata(
            3,
            &[("kernel", MIT, &[]), ("index", MIT, &["kernel"]), ("state", MIT, &["index"])],
        );
        assert_eq!(texts(&direction(&policy(), &graph)), Vec::<&str>::new());
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        let graph = metadata(
            3,
            &[("kernel", MIT, &[]), ("index", MIT, &["kernel"]), ("state", MIT, &["kernel"])],
        );
        let found = direction(&policy(), &graph);
        assert_eq!(
            texts(&found),
            ["state 1.0.0 depends on kernel; only index may: reached through an index"]
        );
    }

    #[test]
    fn a_member_that_is_not_listed_may_be_named_by_nobody() {
        let graph = metadata(2, &[("server", MIT, &[]), ("bench", MIT, &["server"])]);
        let found = direction(&policy(), &graph);
        assert_eq!(texts(&found), ["bench 1.0.0 depends on server, which nobody may"]);
    }

    #[test]
    fn a_banned_crate_anywhere_in_the_graph_is_found() {
        let graph = metadata(1, &[("server", MIT, &[]), ("openssl-sys", MIT, &[])]);
        assert_eq!(direction(&policy(), &graph).len(), 1);
    }

    #[test]
    fn licences_are_judged_as_expressions() {
        let graph = metadata(
            0,
            &[
                ("either", Some("GPL-3.0-only OR MIT"), &[]),
                ("old-slash", Some("MIT/Apache-2.0"), &[]),
                ("with", Some("Apache-2.0 WITH LLVM-exception"), &[]),
                ("special", Some("MPL-2.0"), &[]),
                ("both", Some("MIT AND MPL-2.0"), &[]),
                ("none", None, &[]),
                ("odd", Some("Do What You Like"), &[]),
            ],
        );
        let found = licences(&policy(), &graph).unwrap();
        let texts = texts(&found);
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("both 1.0.0: licence `MIT AND MPL-2.0` is not allowed"));
        assert!(texts[1].starts_with("none 1.0.0: names no licence"));
        assert!(texts[2].starts_with("odd 1.0.0: licence `Do What You Like` is no SPDX"));
    }

    #[test]
    fn an_unknown_licence_in_the_policy_is_an_error() {
        let mut policy = policy();
        policy.licenses.allow.push("No-Such-Licence".into());
        let result = licences(&policy, &metadata(0, &[]));
        assert!(matches!(result, Err(Error::Licence { .. })));
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        let mut graph = metadata(0, &[("good", MIT, &[]), ("forked", MIT, &[]), ("own", MIT, &[])]);
        graph.packages[1].source = Some("git+https://example.org/forked".into());
        graph.packages[2].source = None;
        let found = sources(&policy(), &graph);
        assert_eq!(texts(&found), ["forked 1.0.0 comes from git+https://example.org/forked"]);
    }
}
