// Several files become one zip archive, without compression.
// Source: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ n >>> 1 : n >>> 1;
  return n >>> 0;
});
const crc32 = (data) => {
  let c = 0xffffffff;
  for (const b of data) c = crcTable[(c ^ b) & 255] ^ c >>> 8;
  return (c ^ 0xffffffff) >>> 0;
};

// zip packs [{path, file}]. Sizes are 32 bits: the server's bound on an upload
// is far below.
const zip = async (files) => {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { path, file } of files) {
    const name = new TextEncoder().encode(path);
    const data = new Uint8Array(await file.arrayBuffer());
    // From version 2.0 on; flag 11: the name is UTF-8; stored; midnight of 1980-01-01.
    const common = new DataView(new ArrayBuffer(26));
    common.setUint16(0, 20, true);
    common.setUint16(2, 0x800, true);
    common.setUint16(8, 0x21, true);
    common.setUint32(10, crc32(data), true);
    common.setUint32(14, data.length, true);
    common.setUint32(18, data.length, true);
    common.setUint16(22, name.length, true);
    const local = new Uint8Array([0x50, 0x4b, 3, 4, ...new Uint8Array(common.buffer)]);
    const tail = new DataView(new ArrayBuffer(14));
    tail.setUint32(10, offset, true);
    directory.push(new Uint8Array([0x50, 0x4b, 1, 2, 20, 0, ...new Uint8Array(common.buffer), ...new Uint8Array(tail.buffer)]), name);
    parts.push(local, name, data);
    offset += local.length + name.length + data.length;
  }
  const size = directory.reduce((n, d) => n + d.length, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
};

// withoutRoot drops the one folder that all paths share: an archive's entries
// start at the function's own folder.
const withoutRoot = (files) => {
  const root = files[0].path.split("/")[0] + "/";
  if (files.every((f) => f.path.startsWith(root) && f.path.length > root.length)) {
    return files.map((f) => ({ ...f, path: f.path.slice(root.length) }));
  }
  return files;
};

// dropped lists the files of a drop, those of folders too.
const dropped = async (transfer) => {
  const found = [];
  const walk = async (entry, prefix) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ path: prefix + entry.name, file });
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a read gives at most 100
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const one of some) await walk(one, prefix + entry.name + "/");
    }
  };
  const entries = [...transfer.items].filter((i) => i.kind === "file").map((i) => i.webkitGetAsEntry());
  for (const entry of entries) if (entry) await walk(entry, "");
  return found;
};
