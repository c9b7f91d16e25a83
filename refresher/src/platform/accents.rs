//! The accents of a profile: how its platform speaks a dialect, by model.

use latchkey::{
    dialect::{Dialect, accent::Accent},
    snapshot::{Endpoint, ModelAccent, Models},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Invalid, fit, invalid};

/// Gives the accents to the endpoints that speak their dialects.
///
/// # Errors
/// Naming the key that is wrong.
pub(super) fn put(
    accents: Vec<toml::Table>,
    mut endpoints: Vec<Endpoint>,
) -> Result<Vec<Endpoint>, Invalid> {
    for (index, table) in accents.into_iter().enumerate() {
        let at = |key: &str| format!("accents[{index}].{key}");
        let mut members = match serde_json::to_value(table) {
            Ok(Value::Object(members)) => members,
            _ => return Err(invalid(format!("accents[{index}]"), "expected a table")),
        };
        let dialect: Dialect = read(&at("dialect"), members.remove("dialect"))?;
        let models: Models = match members.remove("models") {
            None => Models::default(),
            models => read(&at("models"), models)?,
        };
        let accent = Accent::parse(members).map_err(|(key, why)| invalid(at(&key), why))?;
        let speaking = endpoints
            .iter_mut()
            .filter(|endpoint| endpoint.dialect == dialect && endpoint.generates());
        for endpoint in speaking {
            let (models, accent) = (models.clone(), accent.clone());
            endpoint.accents.push(ModelAccent { models, accent });
        }
    }
    Ok(endpoints)
}

fn read<T: DeserializeOwned>(key: &str, value: Option<Value>) -> Result<T, Invalid> {
    let value = value.unwrap_or_default();
    fit(key, serde_json::from_value(value))
}
