//! The requests that callers may make of the gateway: the doors that are built in.

use std::sync::LazyLock;

use latchkey::snapshot::Doors;

/// The built-in doors, without the id of their record.
const BUILT_IN: &str = include_str!("doors.toml");

/// Every door.
static DOORS: LazyLock<Doors> = LazyLock::new(|| {
    let mut table: toml::Table = BUILT_IN.parse().expect("doors.toml is TOML");
    table.insert("id".to_owned(), Doors::ID.into());
    table.try_into().expect("doors.toml is doors")
});

/// The requests that callers may make.
pub fn doors() -> &'static Doors {
    &DOORS
}

/// Lists the operations of the doors, for an error: `chat: embed, generate; messages: generate`.
pub(super) fn asked() -> String {
    let mut asked: Vec<(&str, &str)> = doors()
        .doors
        .iter()
        .filter(|door| !door.lists_models())
        .map(|door| (door.dialect.word(), door.operation.as_str()))
        .collect();
    asked.sort_unstable();
    asked.dedup();
    let by_dialect = asked.chunk_by(|one, next| one.0 == next.0);
    let words = by_dialect.map(|asked| {
        let operations: Vec<&str> = asked.iter().map(|(_, operation)| *operation).collect();
        let dialect = asked.first().map_or("", |(dialect, _)| dialect);
        format!("{dialect}: {}", operations.join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use latchkey::snapshot::Record;

    use super::*;

    #[test]
    fn the_built_in_doors_are_in_nobodys_way() {
        assert_eq!(doors().problem(), None);
        let record = Record::Doors(doors().clone());
        let line = record.to_line().unwrap();
        assert_eq!(Record::from_line(line.as_bytes()).unwrap(), record);
        assert_eq!(
            asked(),
            "chat: embed, generate; messages: count_tokens, generate; responses: generate"
        );
    }

    /// A door says all that is written of it: a key that is none would do nothing.
    #[test]
    fn every_key_of_a_door_is_one() {
        let table: toml::Table = BUILT_IN.parse().unwrap();
        let written = table["doors"].as_array().unwrap();
        for (door, written) in doors().doors.iter().zip(written) {
            let meant = toml::Value::try_from(door).unwrap();
            assert_eq!(&meant, written);
        }
    }
}
