package build

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// zipSlack is how many times the allowed entries the signature of a directory
// entry may occur in an archive: it also occurs inside stored archives. It
// bounds what reading the directory costs (some 400 bytes an entry).
const zipSlack = 4

// zip reads a zip archive. Its directory stands at its end, so it goes to an
// unnamed file in dst first.
func (x *extraction) zip(r io.Reader) (err error) {
	spool, err := os.CreateTemp(x.dst, ".zip-")
	if err != nil {
		return fmt.Errorf("spool archive: %w", err)
	}
	defer func() {
		if e := spool.Close(); err == nil {
			err = e
		}
	}()
	if err := os.Remove(spool.Name()); err != nil {
		return fmt.Errorf("spool archive: %w", err)
	}
	var signatures zipSignatures
	size, err := io.Copy(io.MultiWriter(spool, &signatures), r)
	if err != nil {
		var mine *Error
		if errors.As(err, &mine) {
			return mine
		}
		return fmt.Errorf("spool archive: %w", err)
	}
	if signatures.n > zipSlack*x.limits.Entries {
		return tooLarge("more than %d files and folders", x.limits.Entries)
	}
	archive, err := zip.NewReader(spool, size)
	if err != nil {
		return x.readError(err)
	}
	if len(archive.File) > x.limits.Entries {
		return tooLarge("%d files and folders, at most %d are allowed", len(archive.File), x.limits.Entries)
	}
	for _, file := range archive.File {
		if err := x.zipEntry(file); err != nil {
			return err
		}
	}
	return nil
}

func (x *extraction) zipEntry(file *zip.File) (err error) {
	if file.Flags&1 != 0 {
		return bad("%s is encrypted", quoted(file.Name))
	}
	mode := file.Mode()
	if !mode.IsRegular() {
		return x.entry(file.Name, mode, nil)
	}
	content, err := file.Open()
	if err != nil {
		return x.readError(fmt.Errorf("%s: %w", quoted(file.Name), err))
	}
	defer func() {
		if e := content.Close(); err == nil {
			err = e
		}
	}()
	return x.entry(file.Name, mode, content)
}

// tar reads a tar archive while it arrives.
func (x *extraction) tar(r io.Reader) error {
	archive := tar.NewReader(r)
	for headers := 0; ; headers++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return x.readError(err)
		}
		if headers >= x.limits.Entries {
			return tooLarge("more than %d files and folders", x.limits.Entries)
		}
		var mode fs.FileMode
		switch header.Typeflag {
		case tar.TypeXGlobalHeader: // what git archive adds: no entry
			continue
		case tar.TypeReg, tar.TypeGNUSparse:
			mode = fs.FileMode(header.Mode & 0o777)
		case tar.TypeDir:
			mode = fs.ModeDir
		case tar.TypeLink, tar.TypeSymlink:
			mode = fs.ModeSymlink
		case tar.TypeChar, tar.TypeBlock:
			mode = fs.ModeDevice
		case tar.TypeFifo:
			mode = fs.ModeNamedPipe
		default:
			mode = fs.ModeIrregular
		}
		if err := x.entry(header.Name, mode, archive); err != nil {
			return err
		}
	}
}

// zipSignatures counts where a directory entry of a zip archive can begin, in
// pieces of any size.
type zipSignatures struct {
	matched int // bytes of the signature that the last ones were
	n       int
}

const zipDirectoryEntry = "PK\x01\x02"

func (z *zipSignatures) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == zipDirectoryEntry[z.matched]:
			z.matched++
		case c == zipDirectoryEntry[0]: // the signature's first byte comes once in it
			z.matched = 1
		default:
			z.matched = 0
		}
		if z.matched == len(zipDirectoryEntry) {
			z.n++
			z.matched = 0
		}
	}
	return len(p), nil
}
