package sys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestPrivatePagesAreThoseThatWereWritten(t *testing.T) {
	t.Parallel()
	const pages = 700
	fd, err := MemfdCreate("test", pages*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseRaw(fd)
	if err := WriteAt(fd, []byte("first"), 0); err != nil {
		t.Fatal(err)
	}
	all, err := MmapReserve((pages + 100) * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Munmap(all) }()
	if err := MmapOverAt(all[:pages*PageSize], fd, 0); err != nil {
		t.Fatal(err)
	}
	PopulateRead(all[:pages*PageSize])
	pm, err := OpenPagemap()
	if err != nil {
		t.Fatal(err)
	}
	defer pm.Close()
	for _, scan := range []bool{true, false} {
		if scan && !pm.scan {
			continue
		}
		look := &Pagemap{fd: pm.fd, scan: scan}
		if got, err := look.Private(all, nil); err != nil || len(got) != 0 {
			t.Errorf("scan %t, fresh: %v %v", scan, got, err)
		}
	}
	before := Faults()
	var want []PageRange
	write := func(page int) {
		all[page*PageSize+17]++
		want = appendRange(want, PageRange{page * PageSize, (page + 1) * PageSize})
	}
	write(0)
	write(1)
	for page := 5; page < pages; page += 2 {
		write(page)
	}
	write(pages + 50) // behind the file
	if Faults()-before < uint64(len(want)) {
		t.Errorf("%d faults for %d ranges", Faults()-before, len(want))
	}
	for _, scan := range []bool{true, false} {
		if scan && !pm.scan {
			continue
		}
		look := &Pagemap{fd: pm.fd, scan: scan}
		if got, err := look.Private(all, nil); err != nil || !slices.Equal(got, want) {
			t.Errorf("scan %t: %d ranges, want %d (%v)", scan, len(got), len(want), err)
		}
	}
	if string(all[:5]) != "first" {
		t.Errorf("file reads %q", all[:5])
	}
	if err := Discard(all); err != nil {
		t.Fatal(err)
	}
	if got, err := pm.Private(all, nil); err != nil || len(got) != 0 || all[17] != 0 || all[(pages+50)*PageSize+17] != 0 {
		t.Errorf("discarded: %v %v", got, err)
	}
}

func TestCodeIsMappedOverAMapping(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "code"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	content := bytes.Repeat([]byte("0123456789abcdef"), 3*PageSize/16)
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	b, err := MmapReserve(3 * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Munmap(b) }()
	if err := MmapCodeOver(b[1:], int(f.Fd()), 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("not at a page: %v", err)
	}
	if err := MmapCodeOver(b[:PageSize+100], int(f.Fd()), 1); err == nil || b[0] != 0 {
		t.Errorf("from the middle of a page: %v", err)
	}
	if err := MmapCodeOver(b[:PageSize+100], int(f.Fd()), PageSize); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b[:2*PageSize], content[PageSize:]) || !bytes.Equal(b[2*PageSize:], make([]byte, PageSize)) {
		t.Error("the mapping does not read as the file")
	}
}

func TestRetiredPagesKeepTheirAddresses(t *testing.T) {
	t.Parallel()
	b, err := MmapReserve(3 * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Munmap(b) }()
	for i := range b {
		b[i] = 1
	}
	pagemap, err := OpenPagemap()
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	if err := Retire(b[1:]); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("not at a page: %v", err)
	}
	if err := errors.Join(Retire(nil), Retire(b[:PageSize+1])); err != nil {
		t.Fatal(err)
	}
	if private, err := pagemap.Private(b, nil); err != nil || len(private) != 1 || private[0] != (PageRange{2 * PageSize, 3 * PageSize}) {
		t.Errorf("what is left: %v, %v; want the last page", private, err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x-%x ---p", &b[0], &b[2*PageSize]); !strings.Contains(string(maps), strings.ReplaceAll(want, "0x", "")) {
		t.Errorf("no line %q", want)
	}
}
