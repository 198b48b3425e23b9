# The program of ketch.linux.memory_image for x86_64. Its bytes there are those of
#   as FILE -o memory_image.o && objcopy -O binary -j .text memory_image.o memory_image
# and a test compares them. Regions are four words each: where it begins, its length in bytes, where
# it is in the file, and where the file's part is mapped to be read.
.intel_syntax noprefix
.globl _start
_start:    # long keep(regions, count, file): 0, or the negative number of an error
  push rbx
  push r12
  push r13
  push r14
  mov rbx, rdi
  mov r12, rsi
  mov r13, rdx
region:
  xor eax, eax
  test r12, r12
  jz kept
  xor r14d, r14d
copy:      # pwrite64(file, begin + done, length - done, offset + done)
  mov rdi, r13
  mov rsi, [rbx]
  add rsi, r14
  mov rdx, [rbx+8]
  sub rdx, r14
  jz map
  mov r10, [rbx+16]
  add r10, r14
  mov eax, 18
  syscall
  add r14, rax
  test rax, rax
  jg copy
  mov rax, -5
  jmp kept
map:       # mmap(begin, length, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, file, offset)
  mov rdi, [rbx]
  mov rsi, [rbx+8]
  mov edx, 3
  mov r10d, 18
  mov r8, r13
  mov r9, [rbx+16]
  mov eax, 9
  syscall
  cmp rax, [rbx]
  jne kept
  add rbx, 32
  dec r12
  jmp region
kept:
  pop r14
  pop r13
  pop r12
  pop rbx
  ret
.balign 16
restore:   # of pages that are no longer the file's and read as they do there, none is kept
           # long restore(regions, count, pagemap, page's bytes, pollfds, their count and, from
           # bit 32 on, for how many milliseconds to wait): what poll(2) returned
  push rbx
  push rbp
  push r12
  push r13
  push r14
  push r15
  sub rsp, 2088
  mov rbx, rdi
  mov rbp, rsi
  mov r15, rcx
  mov [rsp+2048], rdx
  mov [rsp+2056], r8
  mov [rsp+2064], r9
next:
  test rbp, rbp
  jz restored
  xor r12d, r12d
entries:   # pread64(pagemap, entries, 8 a page, 8 * the page's number)
  mov rax, [rbx+8]
  sub rax, r12
  jz last
  xor edx, edx
  div r15
  shl rax, 3
  mov r13d, 2048
  cmp rax, r13
  cmovb r13, rax
  mov rax, [rbx]
  add rax, r12
  xor edx, edx
  div r15
  shl rax, 3
  mov r10, rax
  mov rdi, [rsp+2048]
  mov rsi, rsp
  mov rdx, r13
  mov eax, 17
  syscall
  cmp rax, r13
  jne restored
  xor r14d, r14d
page:
  cmp r14, r13
  jae entries
  mov rax, [rsp+r14]
  mov rsi, [rbx]
  add rsi, r12
  mov rdi, [rbx+24]
  add rdi, r12
  add r12, r15
  add r14, 8
  bt rax, 63 # present
  jnc page
  bt rax, 61 # still the file's
  jc page
  mov r8, rsi
  mov r9, rdi
  mov rcx, r15
  shr rcx, 3
  repe cmpsq
  jne page
  mov rdi, r8 # madvise(page, its bytes, MADV_DONTNEED)
  mov rsi, r15
  mov edx, 4
  mov eax, 28
  syscall
  mov rdi, r8
  mov rsi, r9
  mov rcx, r15
  shr rcx, 3
  repe cmpsq
  je page
  mov rdi, r8 # no longer the file's memory, but what came in its place: it was emptied by that
  mov rsi, r9
  mov rcx, r15
  shr rcx, 3
  rep movsq
  jmp page
last:
  add rbx, 32
  dec rbp
  jmp next
restored:  # poll(pollfds, count, milliseconds)
  xor eax, eax
  mov rdi, [rsp+2056]
  test rdi, rdi
  jz leave
  mov esi, [rsp+2064]
  mov edx, [rsp+2068]
  mov eax, 7
  syscall
leave:
  add rsp, 2088
  pop r15
  pop r14
  pop r13
  pop r12
  pop rbp
  pop rbx
  ret
