//! Says how long a login is still waited for, on a terminal that shows it.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::output::Out;

/// The pause between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// Does `work`, and shows meanwhile how much of `limit` is left.
pub async fn shown<T>(out: &Out, limit: Duration, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = tick.tick() => out.show(&left(limit.saturating_sub(begun.elapsed()))),
        }
    };
    out.show("");
    done
}

fn left(time: Duration) -> String {
    let seconds = time.as_secs();
    format!(
        "waiting for the login: {}:{:02} left",
        seconds / 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Everything that was shown.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_left_is_shown_and_taken_off_again() {
        let screen = Screen::default();
        let work = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            7
        };
        let out = Out::new(std::io::sink(), screen.clone()).on_a_terminal();
        assert_eq!(shown(&out, Duration::from_secs(600), work).await, 7);
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.split('\r').skip(1).collect();
        let expected = ["10:00", "9:59", "9:58"];
        assert_eq!(lines.len(), 4, "{text:?}");
        for (line, time) in lines.iter().zip(expected) {
            assert!(line.contains(&format!("{time} left")), "{text:?}");
        }
        assert_eq!(lines[3], "\x1b[K", "the line is gone");
        // A log shows no clock.
        let screen = Screen::default();
        let out = Out::new(std::io::sink(), screen.clone());
        shown(&out, Duration::from_secs(600), std::future::ready(())).await;
        assert!(screen.0.lock().unwrap().is_empty());
    }
}
