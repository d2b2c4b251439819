//! A library's spec as entries and the catalog's snapshot have it: the bytes are in the table of
//! [`crate::LibraryEntry`]'s module.

use arrwdb_index::analysis::Language;
use arrwdb_index::{IndexSpec, Metric, Quantization, Structure};

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{LibraryId, TenantId, Timestamp};
use crate::library::{LibrarySpec, ModelName};
use crate::limits::DIMENSIONS_MAX;

/// The version of a library's spec that is written: 1 had neither index nor metric, 2 knew no
/// companions. What earlier releases know is written as they know it.
pub(crate) const SPEC_VERSION: u8 = 3;
/// The version of the spec of a generation, which 3 did not know.
pub(crate) const GENERATION_SPEC_VERSION: u8 = 4;
/// The version of the spec of a library that is not English, which all were to 4.
pub(crate) const LANGUAGE_SPEC_VERSION: u8 = 5;

/// The version that a spec is written in.
pub(super) fn spec_version(spec: &LibrarySpec) -> u8 {
    if spec.language != Language::English {
        LANGUAGE_SPEC_VERSION
    } else if spec.generation_of.is_some() {
        GENERATION_SPEC_VERSION
    } else {
        SPEC_VERSION
    }
}

pub(crate) fn read_dimension(from: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let dimension = from.u32("dimension")?;
    if (1..=DIMENSIONS_MAX).contains(&dimension) {
        Ok(dimension)
    } else {
        Err(from.error("a dimension within its limit"))
    }
}

/// Writes a spec in a version from [`SPEC_VERSION`] on that knows all that it says.
pub(crate) fn write_spec(out: &mut Writer, spec: &LibrarySpec, version: u8) {
    out.id(spec.id.to_bytes());
    out.u64(spec.tenant.number());
    out.text(&spec.name);
    out.text_option(spec.description.as_deref());
    out.i64(spec.created_at.micros());
    out.text(&spec.model.provider);
    out.text(&spec.model.model);
    out.u32(spec.dimension);
    out.text(spec.metric.name());
    write_index(out, spec.index);
    match (spec.companion_of, spec.generation_of) {
        (Some(of), _) => {
            out.u8(1);
            out.id(of.to_bytes());
        }
        (None, Some(of)) => {
            out.u8(2);
            out.id(of.to_bytes());
        }
        (None, None) => out.u8(0),
    }
    if version >= LANGUAGE_SPEC_VERSION {
        out.text(spec.language.code());
    }
}

/// Reads a spec of a version up to [`LANGUAGE_SPEC_VERSION`].
pub(crate) fn read_spec(from: &mut Reader<'_>, version: u8) -> Result<LibrarySpec, DecodeError> {
    let id = LibraryId::new(from.uuid("library id")?);
    let tenant = TenantId::new(from.u64("tenant")?);
    let name = from.text("name")?.to_owned();
    let description = from.text_option("description")?.map(str::to_owned);
    let created_at = Timestamp::from_micros(from.i64("creation time")?);
    if version == 1 && from.text("index type")? != "brute_force" {
        return Err(from.error("the only index type of version 1"));
    }
    let provider = from.text("provider")?.to_owned();
    let model = from.text("model")?.to_owned();
    let dimension = read_dimension(from)?;
    let (metric, index) = if version == 1 {
        (Metric::Cosine, IndexSpec::default())
    } else {
        let (metric, index) = (read_metric(from)?, read_index(from)?);
        index
            .check_dimension(dimension as usize)
            .map_err(|_apart| from.error("an index that the dimension can have"))?;
        (metric, index)
    };
    let (mut companion_of, mut generation_of) = (None, None);
    match (version, if version >= 3 { from.u8("part of a library")? } else { 0 }) {
        (_, 0) => {}
        (_, 1) => companion_of = Some(LibraryId::new(from.uuid("library id")?)),
        (GENERATION_SPEC_VERSION.., 2) => {
            generation_of = Some(LibraryId::new(from.uuid("library id")?));
        }
        _ => return Err(from.error("a part of a library that this version knows")),
    }
    if companion_of.is_some_and(|of| of.companion() != id) {
        return Err(from.error("the id of a companion"));
    }
    if generation_of == Some(id) {
        return Err(from.error("a generation that is not its own library"));
    }
    let language =
        if version >= LANGUAGE_SPEC_VERSION { read_language(from)? } else { Language::English };
    Ok(LibrarySpec {
        id,
        tenant,
        name,
        description,
        created_at,
        index,
        metric,
        model: ModelName { provider, model },
        dimension,
        companion_of,
        generation_of,
        language,
    })
}

pub(crate) fn read_language(from: &mut Reader<'_>) -> Result<Language, DecodeError> {
    let code = from.text("language")?;
    Language::from_code(code).ok_or_else(|| from.error("a language this build knows"))
}

pub(crate) fn read_metric(from: &mut Reader<'_>) -> Result<Metric, DecodeError> {
    let name = from.text("metric")?;
    Metric::from_name(name).ok_or_else(|| from.error("a metric this build knows"))
}

pub(crate) fn write_index(out: &mut Writer, index: IndexSpec) {
    let mut part = |name: &str, parameters: &[(&'static str, u64)]| {
        out.text(name);
        out.count(parameters.len());
        for (name, value) in parameters {
            out.text(name);
            out.u64(*value);
        }
    };
    part(index.structure.type_name(), &index.structure.parameters());
    part(index.quantization.strategy(), &index.quantization.parameters());
}

pub(crate) fn read_index(from: &mut Reader<'_>) -> Result<IndexSpec, DecodeError> {
    let (name, parameters) = read_parameters(from)?;
    let structure = Structure::new(name, &parameters)
        .map_err(|_unknown| from.error("an index this build knows"))?;
    let (name, parameters) = read_parameters(from)?;
    let quantization = Quantization::new(name, &parameters)
        .map_err(|_unknown| from.error("a quantisation this build knows"))?;
    // Vector fields were once given what does not go together, unchecked: what is in the log has to open,
    // and is searched by its structure over the vectors themselves.
    let apart = IndexSpec { structure, quantization: Quantization::None };
    Ok(IndexSpec::new(structure, quantization).unwrap_or(apart))
}

/// A name, and parameters with their numbers.
type Named<'a> = (&'a str, Vec<(&'a str, u64)>);

fn read_parameters<'a>(from: &mut Reader<'a>) -> Result<Named<'a>, DecodeError> {
    let name = from.text("name")?;
    let count = from.count(12, "parameters")?;
    let parameters = (0..count)
        .map(|_parameter| Ok((from.text("parameter")?, from.u64("value")?)))
        .collect::<Result<_, DecodeError>>()?;
    Ok((name, parameters))
}
