use std::fs;

use crate::harness::{refresher::Refresher, run, sim::Sim, stack::new_folder};

/// A daemon that was killed while it made its database left one that no later start took. Now it is made beside its
/// place, and what an earlier start left there is made anew.
#[test]
fn a_database_left_half_made_is_made_anew() {
    run(async {
        let folder = new_folder("regression-half-made");
        let refresher = Refresher::new(&folder, &Sim::start(&folder).await);
        fs::write(
            refresher.file("latchkey.new"),
            "SQLite format 3\0 and then the kill",
        )
        .expect("written");
        fs::write(refresher.file("latchkey.new-journal"), "half a journal").expect("written");
        fs::write(refresher.file("latchkey.new-wal"), "half a log").expect("written");
        fs::write(refresher.file("key.new"), "AAAA").expect("written");
        refresher.add_api_key("first", "openai", "sk-first").await;
        assert_eq!(refresher.account("first").await["usable"], true);
        assert!(!refresher.file("latchkey.new").exists());
    });
}
