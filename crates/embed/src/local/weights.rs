//! Reading the model's tensors out of `model.safetensors`, every shape checked.

use safetensors::{Dtype, SafeTensors};

use super::LocalError;

/// The tensors of a model file, by name.
pub(super) struct Tensors<'a> {
    file: SafeTensors<'a>,
}

impl<'a> Tensors<'a> {
    /// Parses the header of `bytes`; the tensors stay where they are.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Tensors<'a>, LocalError> {
        Ok(Tensors { file: SafeTensors::deserialize(bytes)? })
    }

    /// The tensor `name`, row-major, if it is f32 and has exactly this shape.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LocalError> {
        let tensor = self.file.tensor(name)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(LocalError::Tensor {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.shape().to_vec(),
                dtype: format!("{:?}", tensor.dtype()),
            });
        }
        let (chunks, _) = tensor.data().as_chunks::<4>();
        Ok(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}
