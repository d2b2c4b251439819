//! Finding a package's wheel in a Python package index, whose pages are JSON (PEP 691) or HTML
//! (PEP 503).

use reqwest::Url;
use serde::Deserialize;

/// What to ask an index for: JSON if it can, else HTML.
pub(super) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    filename: String,
    url: String,
}

/// The address of the newest wheel on an index's page for a package: the last one listed.
pub(super) fn wheel_url(page: &str, page_url: &Url) -> Option<Url> {
    let addresses = match serde_json::from_str::<Page>(page) {
        Ok(page) => page
            .files
            .into_iter()
            .filter(|file| is_wheel(&file.filename))
            .map(|file| file.url)
            .collect(),
        Err(_) => html_links(page),
    };
    addresses
        .iter()
        .rev()
        .filter_map(|address| page_url.join(address).ok())
        .find(|url| is_wheel(url.path()))
}

fn is_wheel(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "whl")
}

/// The `href`s of a page, in order.
fn html_links(page: &str) -> Vec<String> {
    page.split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(address, _)| address.replace("&amp;", "&"))
        .collect()
}
