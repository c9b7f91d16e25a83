//! Progress of the arguments of a call, of which a platform sends pieces.

/// Progress through an object or a list of JSON.
#[derive(Debug, Default)]
pub struct Progress {
    /// The objects and lists that are open.
    depth: u32,
    in_string: bool,
    escaped: bool,
    whole: bool,
}

// === impl Progress ===

impl Progress {
    /// Reads more of them.
    pub fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' => self.escaped = self.in_string,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.whole |= self.depth == 0;
                }
                _ => {}
            }
        }
    }

    /// Returns true if all of it has come.
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}
