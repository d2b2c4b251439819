//! The local model's files: the header of its tensors, and its tokenizer.
#![no_main]

use arrwdb_embed::local::{LocalModel, Precision};
use arrwdb_embed::model_files::ModelFiles;
use libfuzzer_sys::fuzz_target;

/// The least that is taken for a tokenizer, so that the tensors are read as well.
const TOKENIZER: &[u8] = br###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{
"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
"max_input_chars_per_word":100,"vocab":{"[UNK]":0,"[SEP]":1}}}"###;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let files = ModelFiles {
        dir: dir.path().to_owned(),
        model: dir.path().join("model.safetensors"),
        tokenizer: dir.path().join("tokenizer.json"),
    };
    // Nothing but the model itself is all of what the encoder needs.
    for (tokenizer, model) in [(TOKENIZER, bytes), (bytes, b"".as_slice())] {
        std::fs::write(&files.tokenizer, tokenizer).expect("written");
        std::fs::write(&files.model, model).expect("written");
        let error = LocalModel::load(&files, Precision::F32, 1).expect_err("refused");
        assert!(!error.to_string().is_empty());
    }
});
