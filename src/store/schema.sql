-- The index of one folder on one device: format version 7.
--
-- This file is the description of the format and also what creates it. A change of it is a new
-- version, with a step in migrations.rs that leads there from the one before.
--
-- Outside of the tables: `application_id` is 0x4b494e46 ("KINF"), `user_version` the format version.
--
-- Numbers. What is 64 bits without a sign (inodes, incarnations, counts of bytes) is stored as the
-- signed number of the same bits, and only compared for equality. What is ordered (sequences) stays
-- below 2^62 and needs no such care. Times are nanoseconds since 1970, with a sign.
--
-- Blobs. `data` columns hold what nothing searches by, in the compact form that codec.rs describes.
-- Rows end with, or have in `sum`, the first four bytes of a BLAKE3 hash over their key and content:
-- SQLite has no checksums of its own, and a flipped bit must not become a fact about a file.
--
-- Paths. Where a whole path is a key it is stored with 0x00 in the place of `/`. As no name holds a
-- zero byte, comparing such keys byte by byte orders paths by components: a directory comes right
-- before all that lies below it, which is then one range.

-- The single values; one row. `clean` is 1 only between an orderly close and the first change after
-- it: where it is 0 at opening, the file is checked as a whole.
CREATE TABLE meta (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    clean         INTEGER NOT NULL,
    incarnation   INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    tree_hash     BLOB NOT NULL,
    files         INTEGER NOT NULL, -- Totals, kept up with every change.
    dirs          INTEGER NOT NULL,
    symlinks      INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    kept_bytes    INTEGER NOT NULL, -- What the files of `kept` add up to.
    sum           INTEGER NOT NULL  -- Over all but `clean`.
);

-- Directories that hold something, as numbers, so that no row repeats a long path. The root is 0 and
-- has no row. A row says nothing of whether the directory exists: that is its entry's matter.
CREATE TABLE dir (
    dir    INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    sum    INTEGER NOT NULL
);
CREATE UNIQUE INDEX dir_by_name ON dir (parent, name);

-- What is held at each path. A listing of a directory is one range of the primary key.
CREATE TABLE entry (
    dir   INTEGER NOT NULL,
    name  BLOB NOT NULL,
    -- 0 live, 1 live and named as a conflict copy, 2 deleted; ignored paths: 3 with something
    -- there, 4 with nothing.
    state INTEGER NOT NULL,
    seq   INTEGER NOT NULL, -- The place in this device's order of changes.
    ino   INTEGER,          -- The inode, of live files only.
    chunk INTEGER,          -- The prefix of the one chunk, of live files that have exactly one.
    data  BLOB NOT NULL,
    PRIMARY KEY (dir, name)
) WITHOUT ROWID;
CREATE INDEX entry_by_seq ON entry (seq);
CREATE INDEX entry_by_ino ON entry (ino) WHERE ino IS NOT NULL;
CREATE INDEX entry_by_chunk ON entry (chunk) WHERE chunk IS NOT NULL;
CREATE INDEX entry_copies ON entry (dir, name) WHERE state = 1;

-- The files of several chunks: which file a recipe belongs to. The chunks lie apart from the entries,
-- for these are read all the time and recipes seldom.
CREATE TABLE recipe (
    recipe INTEGER PRIMARY KEY,
    dir    INTEGER NOT NULL,
    name   BLOB NOT NULL
);

-- The chunks of a recipe, 112 to a row, which fills a page: 32 bytes of id and 4 of length each
-- (little-endian). `part` is the recipe's number times 2^19 plus the place of the part in it.
CREATE TABLE part (
    part   INTEGER PRIMARY KEY,
    chunks BLOB NOT NULL
);

-- Where chunks of live files of several chunks are found. `prefix` is the first 31 bits of the chunk
-- id, big-endian; what is found by it is compared with the whole id in the part. The short prefix is
-- worth its rare false hits: these rows come in random order, so their size is what costs.
CREATE TABLE place (
    prefix INTEGER NOT NULL,
    part   INTEGER NOT NULL,
    PRIMARY KEY (prefix, part)
) WITHOUT ROWID;

-- The devices that this index knows something of, and how far it has come with each.
CREATE TABLE peer (
    peer         INTEGER PRIMARY KEY,
    device       BLOB NOT NULL UNIQUE,
    incarnation  INTEGER,          -- Of the peer's index; NULL before the first contact.
    received     INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    remotes      INTEGER NOT NULL, -- The number of rows in `remote`.
    sum          INTEGER NOT NULL, -- Over the following as well, unless they are 0 or NULL.
    agreed       INTEGER NOT NULL DEFAULT 0, -- The last change when both last held the same.
    left_out     INTEGER NOT NULL DEFAULT 0, -- Rows in `remote` at paths that one of the two leaves out.
    apart        BLOB, -- The sum of the hashes of what is held here and left out there; NULL for none.
    life         INTEGER NOT NULL DEFAULT 0 -- Of the peer's index, in which it was last heard; 0 for none.
);

-- What peers hold, where that is not what this device holds or has seen.
CREATE TABLE remote (
    path BLOB NOT NULL, -- With 0x00 for `/`.
    peer INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (path, peer)
) WITHOUT ROWID;

-- What the brake remembers, in a form of the engine's (src/engine/brake.rs); no row at first.
CREATE TABLE brake (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    data BLOB NOT NULL
);

-- The epoch that the index is in and the one that it may have begun (16 bytes each); the folder's root
-- remembers one of them, or this is an old copy of the index. No row before the root was first found.
CREATE TABLE epoch (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    data BLOB NOT NULL
);

-- How far the slow check of all files has come, in a form of the engine's (src/engine/folder/verify.rs);
-- no row at first.
CREATE TABLE scrub (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    data BLOB NOT NULL
);

-- The lives that this index has had, in a form of the engine's (src/engine/folder/lives.rs); no row before the first
-- contact with a peer.
CREATE TABLE life (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    data BLOB NOT NULL
);

-- Former versions that were put aside, by where they lay and when that ended.
CREATE TABLE kept (
    kept  INTEGER PRIMARY KEY,
    path  BLOB NOT NULL, -- With 0x00 for `/`.
    until INTEGER NOT NULL,
    data  BLOB NOT NULL
);
CREATE INDEX kept_by_path ON kept (path);
CREATE INDEX kept_by_until ON kept (until);

PRAGMA application_id = 0x4b494e46;
PRAGMA user_version = 7;
