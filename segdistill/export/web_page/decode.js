// Decodes an image file as it is stored, neither turned nor colour-managed: so were the images that the network was
// trained and scored on. `turned`: whether its EXIF part tells viewers to show it turned or mirrored.

export async function decoded(file) {
  const view = new DataView(await file.arrayBuffer());
  const exif = [...jpegSegments(view), ...pngChunks(view)].find(({ isExif }) => isExif);
  // Browsers turn an image as that part says, even where they are asked not to; so it is cut out.
  const stored = exif ? new Blob([file.slice(0, exif.start), file.slice(exif.end)], { type: file.type }) : file;
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  return { image: await createImageBitmap(stored, options), turned: exif !== undefined && turns(view, exif.tiff) };
}

// Whether the orientation in a TIFF header's first directory is another than upright; false if there is none to read.
function turns(view, tiff) {
  try {
    const little = view.getUint16(tiff) === 0x4949;
    const directory = tiff + view.getUint32(tiff + 4, little);
    for (let place = 0; place < view.getUint16(directory, little); place++) {
      const entry = directory + 2 + 12 * place;
      if (view.getUint16(entry, little) === 0x0112) {
        const orientation = view.getUint16(entry + 8, little);
        return orientation > 1 && orientation <= 8; // 0 and others mean nothing
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // beyond the file's end
  }
  return false;
}

// From the start to the pixels: a marker, a length that counts itself, content.
function* jpegSegments(view) {
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return;
  for (let start = 2, end; start + 8 <= view.byteLength; start = end) {
    const marker = view.getUint16(start);
    if (marker < 0xffc0 || marker === 0xffda) return;
    end = start + 2 + view.getUint16(start + 2);
    const isExif = marker === 0xffe1 && view.getUint32(start + 4) === 0x45786966; /* Exif */
    yield { start, end, isExif, tiff: start + 10 };
  }
}

// A length, a type, content of that length, a checksum.
function* pngChunks(view) {
  if (view.byteLength < 8 || view.getUint32(0) !== 0x89504e47) return;
  for (let start = 8, end; start + 12 <= view.byteLength; start = end) {
    end = start + 12 + view.getUint32(start);
    yield { start, end, isExif: view.getUint32(start + 4) === 0x65584966 /* eXIf */, tiff: start + 8 };
  }
}
