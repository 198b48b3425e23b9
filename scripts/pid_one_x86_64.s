# The program of ketch.runtime.pid_one for x86_64. Its bytes there are those of
#   as FILE -o pid_one.o && objcopy -O binary -j .text pid_one.o pid_one
# less the data at the end, and a test compares them.
.intel_syntax noprefix
.globl _start
_start:    # prctl(PR_SET_NAME, name); rt_sigprocmask(SIG_SETMASK, every, NULL, 8); close(ready)
  sub rsp, 256
  mov edi, 15
  lea rsi, name[rip]
  mov eax, 157
  syscall
  mov edi, 2
  lea rsi, every[rip]
  xor edx, edx
  mov r10d, 8
  mov eax, 14
  syscall
  mov edi, ready[rip]
  mov eax, 3
  syscall
next:      # rt_sigtimedwait(every, siginfo, NULL, 8); only EINTR is tried again
  lea rdi, every[rip]
  mov rsi, rsp
  xor edx, edx
  mov r10d, 8
  mov eax, 128
  syscall
  test eax, eax
  jg caught
  cmp eax, -4
  je next
  mov edi, 125
  jmp leave
caught:    # kill(child, signal), but for SIGCHLD
  cmp eax, 17
  je reap
  mov esi, eax
  mov edi, child[rip]
  mov eax, 62
  syscall
  jmp next
reap:      # wait4(-1, status, WNOHANG, NULL), until there are no more; the child ends this too
  mov edi, -1
  mov rsi, rsp
  mov edx, 1
  xor r10d, r10d
  mov eax, 61
  syscall
  test eax, eax
  jle next
  cmp eax, child[rip]
  jne reap
  mov eax, [rsp]
  mov edi, eax
  shr edi, 8
  and edi, 255
  and eax, 127
  jz leave
  lea edi, [rax+128]
leave:     # exit_group(its status, or 128 and its signal)
  mov eax, 231
  syscall
.balign 8
every: .quad -1
name: .asciz "docker-init"
child: .long 0
ready: .long 0
