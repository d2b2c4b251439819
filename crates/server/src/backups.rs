//! Where backups are kept, as a person names it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_engine::backup::{FolderTarget, S3Target, Target};
use arrwdb_engine::log::disk::OsDisk;

/// Opens a folder or `s3://BUCKET/PREFIX`. Must be called in a Tokio runtime.
///
/// # Errors
/// It is neither, or cannot be had; the text says what to do.
pub(crate) fn open_target(
    target: &str,
    aws: &BTreeMap<String, String>,
) -> Result<Arc<dyn Target>, String> {
    if target.starts_with("s3://") {
        let opened = S3Target::open(target, aws, tokio::runtime::Handle::current());
        let opened = opened.map_err(|error| error.to_string())?;
        return Ok(Arc::new(opened));
    }
    if let Some((scheme, _)) = target.split_once("://") {
        return Err(format!(
            "{scheme}:// is not a place for backups: name a folder or s3://BUCKET/PREFIX"
        ));
    }
    let dir = std::path::absolute(target).map_err(|error| format!("{target}: {error}"))?;
    Ok(Arc::new(FolderTarget::new(Arc::new(OsDisk), dir)))
}
