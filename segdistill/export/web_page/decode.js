// Decodes an image file as it is stored, neither turned nor colour-managed: so were the images that the network was
// trained and scored on.

export async function decoded(file) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  return createImageBitmap(await withoutExif(file), options);
}

// Browsers turn an image as its EXIF part says, even where they are asked not to; so that part is cut out.
async function withoutExif(file) {
  const view = new DataView(await file.arrayBuffer());
  const exif = [...jpegSegments(view), ...pngChunks(view)].find(({ isExif }) => isExif);
  return exif ? new Blob([file.slice(0, exif.start), file.slice(exif.end)], { type: file.type }) : file;
}

// From the start to the pixels: a marker, a length that counts itself, content.
function* jpegSegments(view) {
  if (view.byteLength < 4 || view.getUint16(0) !== 0xffd8) return;
  for (let start = 2, end; start + 8 <= view.byteLength; start = end) {
    const marker = view.getUint16(start);
    if (marker < 0xffc0 || marker === 0xffda) return;
    end = start + 2 + view.getUint16(start + 2);
    yield { start, end, isExif: marker === 0xffe1 && view.getUint32(start + 4) === 0x45786966 /* Exif */ };
  }
}

// A length, a type, content of that length, a checksum.
function* pngChunks(view) {
  if (view.byteLength < 8 || view.getUint32(0) !== 0x89504e47) return;
  for (let start = 8, end; start + 12 <= view.byteLength; start = end) {
    end = start + 12 + view.getUint32(start);
    yield { start, end, isExif: view.getUint32(start + 4) === 0x65584966 /* eXIf */ };
  }
}
