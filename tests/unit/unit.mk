# Unit tests, included by the Makefile: one program for each tests/unit/test_*.c, of that file and the sanitizer build's
# objects. `make unit` builds and runs them all; `make unit SANITIZE=` without the sanitizers, which qemu does not run.

UNIT_SOURCES  := $(wildcard tests/unit/test_*.c)
UNIT_PROGRAMS := $(UNIT_SOURCES:tests/unit/%.c=build/asan/unit/%)
UNIT_OBJECTS  := $(filter-out build/asan/main.o,$(ASAN_OBJECTS))

unit:
	$(INSTALL) build unit
	$(AGAIN) unit-programs
	@tests/unit/run-unit $(UNIT_PROGRAMS)

build/asan/unit/%: tests/unit/%.c $(UNIT_OBJECTS)
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(ASAN) $(PKG_CFLAGS) -MMD -MF $(@D)/.$(@F).d -o $@ $< $(UNIT_OBJECTS) $(LIBS) -lcmocka

-include $(wildcard build/asan/unit/.*.d)
.PHONY: unit
